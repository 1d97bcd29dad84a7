// A server that binds HOST and PORT for itself and knows nothing of signals.
// `GET /BYTES?MS` answers after MS milliseconds with so many bytes, of which the
// first line says who it is.
const http = require('node:http');
const { fail, answer } = require('./release.js');

fail(() => {
  http.createServer(answer).listen(Number(process.env.PORT), process.env.HOST);
});
