// An HTTP worker in Node. It serves the socket that it is given, and finishes
// its requests before it ends.
const http = require('node:http');

const slot = process.env.SUPERVISOR_INSTANCE;
const server = http.createServer((request, response) => {
  response.end(`hello from slot ${slot}, pid ${process.pid}\n`);
});

// The supervisor passes the sockets of `listen` from descriptor 3 on.
server.listen({ fd: 3 }, () => console.log(`slot ${slot} serves`));

// The signal that asks a script to end: SIGINT unless `kill_signal` says
// otherwise. Nothing is left to do once the last request is answered.
process.on('SIGINT', () => {
  server.close();
  server.closeIdleConnections();
});
