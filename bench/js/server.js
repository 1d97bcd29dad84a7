// server.js [KIND]: answers at once; with `cpu` every tenth answer takes 50 ms of CPU, with `wait` it comes after 100 ms.
// It listens on descriptor 3 if it is given one (LISTEN_FDS), otherwise on PORT. How it ends is STYLE:
//   plain    it has never heard of ending: a signal kills it
//   docs     the handler of PM2's and Node's documentation: server.close()
//   careful  it answers `Connection: close` for a while first, so that no request crosses the close
const http = require('http');
const kind = process.argv[2] || '0';
const style = process.env.STYLE || 'plain';
let ending = false;

const server = http.createServer((request, response) => {
  if (ending && style === 'careful') response.setHeader('Connection', 'close');
  const slow = kind !== '0' && Math.random() < 0.1;
  if (slow && kind === 'wait') return setTimeout(() => response.end('hello\n'), 100);
  if (slow) for (const end = process.cpuUsage().user + process.cpuUsage().system + 50_000;
    process.cpuUsage().user + process.cpuUsage().system < end;);
  response.end('hello\n');
});
server.keepAliveTimeout = 60_000;
server.listen(process.env.LISTEN_FDS ? { fd: 3 } : { port: +process.env.PORT, host: '127.0.0.1', backlog: 511 });

const close = () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
};
const end = () => {
  ending = true;
  if (style === 'careful') setTimeout(close, 600);
  else close();
};
if (style !== 'plain') for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, end);
