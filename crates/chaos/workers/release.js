// What all servers in Node have in common: what a request is answered with, and
// how a bad release fails.
const { SUPERVISOR_APP, SUPERVISOR_INSTANCE, RELEASE, FAILURE } = process.env;

exports.answer = (request, response) => {
  const [, bytes, delay] = request.url.match(/^\/(\d+)\?(\d+)/) ?? [null, 0, 0];
  const head = `${SUPERVISOR_APP} ${SUPERVISOR_INSTANCE} ${process.pid} ${RELEASE}\n`;
  const body = head + 'x'.repeat(Math.max(0, Number(bytes) - head.length));
  setTimeout(() => {
    response.setHeader('Content-Length', Buffer.byteLength(body));
    response.end(body);
  }, Number(delay));
};

// Serves, or fails as FAILURE says.
exports.fail = (serve) => {
  if (FAILURE === 'throw') throw new Error('a bad release');
  if (FAILURE === 'silent') return setInterval(() => {}, 1000);
  if (FAILURE === 'die') setTimeout(() => process.exit(3), 500 - process.uptime() * 1000);
  serve();
};
