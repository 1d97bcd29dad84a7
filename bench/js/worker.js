// Tells the file EVENTS that its code has begun, as c/worker.c does, then does nothing for ever.
// With a first argument it also has a child, as servers with helpers have.
const line = `${String(process.pid).padStart(10)} ${String(process.hrtime.bigint()).padStart(20)}\n`;
require('fs').appendFileSync(process.env.EVENTS, line);
if (process.argv[2]) require('child_process').spawn('sleep', ['inf']);
setInterval(() => {}, 2 ** 30);
