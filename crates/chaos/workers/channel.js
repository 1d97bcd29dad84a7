// Broadcasts numbers, a hundred a second, and notes in the file `got-LIFE` what
// comes from its siblings: when it came, when it was sent, sender, number. A
// message `{flood: N}` has it broadcast N long ones as fast as it can. A life
// is `PID-MILLISECONDS`, as pids come again.
const fs = require('node:fs');

if (process.env.FAILURE === 'throw') throw new Error('a bad release');
const life = `${process.pid}-${Date.now()}`;
const file = fs.openSync(`got-${life}`, 'a');
let sent = 0;
const send = (filler) => process.send({ broadcast: true, from: life, n: ++sent, at: Date.now(), filler });

process.on('message', (message) => {
  if (message.flood) {
    for (let left = message.flood; left > 0; left--) send('x'.repeat(2000));
  } else {
    fs.writeSync(file, `${Date.now()} ${message.at} ${message.from} ${message.n}\n`);
  }
});
process.on('disconnect', () => fs.writeSync(file, `${Date.now()} 0 disconnected 0\n`));
process.on('uncaughtException', (error) => {
  fs.writeSync(file, `${Date.now()} 0 uncaught ${error.message}\n`);
  process.exit(1);
});
setInterval(send, 10);
