// A server for clients that keep their connections. When it is asked to end it
// answers `Connection: close`, and ends when no connection is left. `/health`
// is its readiness check.
const http = require('node:http');
const { fail, answer } = require('./release.js');

fail(() => {
  let ending = false;
  const server = http.createServer((request, response) => {
    if (request.url === '/health') {
      response.statusCode = process.env.FAILURE === 'ill' ? 500 : 200;
      return response.end('health\n');
    }
    // Decided when the answer begins: it may take a while.
    const writeHead = response.writeHead;
    response.writeHead = (...words) => {
      if (ending) response.setHeader('Connection', 'close');
      return writeHead.apply(response, words);
    };
    answer(request, response);
  });
  // A client may be late on a busy machine.
  server.keepAliveTimeout = 120_000;
  server.listen(Number(process.env.PORT), process.env.HOST);
  process.on('SIGTERM', () => {
    ending = true;
    setInterval(() => server.getConnections((error, open) => {
      if (open === 0) process.exit(0);
    }), 50);
  });
});
