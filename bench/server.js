// server.js KIND: answers at once; with `cpu` every tenth answer takes 50 ms of
// CPU, with `wait` it comes after 100 ms.
const http = require('http');
const kind = process.argv[2];
http.createServer((request, response) => {
  const slow = kind !== '0' && Math.random() < 0.1;
  if (slow && kind === 'wait') return setTimeout(() => response.end('hello\n'), 100);
  if (slow) for (const end = process.cpuUsage().user + process.cpuUsage().system + 50_000;
    process.cpuUsage().user + process.cpuUsage().system < end;);
  response.end('hello\n');
}).listen({ fd: 3 });
