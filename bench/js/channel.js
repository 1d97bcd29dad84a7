// The sender and the receivers of the channel's benchmark, in Node.
//   node channel.js supervisor        a worker: slot 0 sends, the others receive
//   node channel.js cluster           Node's own: the primary relays by hand
//   node channel.js redis send|recv N PORT
// WHAT is `max COUNT` or `rate COUNT PER_SECOND`; what came of it goes to FOLDER/result-N.
'use strict';
const fs = require('node:fs');
const net = require('node:net');
const cluster = require('node:cluster');

const [mode, role, number, port] = process.argv.slice(2);
const [what, total, perSecond] = process.env.WHAT.split(' ').map((word) => (isNaN(word) ? word : Number(word)));
const receivers = Number(process.env.RECEIVERS);
const now = () => Number(process.hrtime.bigint());
const payload = (i) => {
  const head = `{"broadcast":true,"i":${i},"t":${now()},"p":"`;
  return head + 'x'.repeat(126 - head.length) + '"}';
};

function receive(index) {
  let count = 0, first = 0;
  const latencies = [];
  return (message) => {
    const at = now();
    if (count++ === 0) first = message.t;
    // The first second is for the compiler.
    if (what === 'rate' ? count > perSecond : count % 32 === 0) latencies.push(at - message.t);
    if (count === total) {
      fs.writeFileSync(`${process.env.FOLDER}/part-${index}`, JSON.stringify({ count, first, end: at, latencies }));
      fs.renameSync(`${process.env.FOLDER}/part-${index}`, `${process.env.FOLDER}/result-${index}`);
    }
  };
}

// As fast as 256 messages under way allow, or at a steady rate.
function run(send) {
  let i = 0;
  if (what === 'max') {
    let underWay = 0;
    const pump = () => {
      for (; underWay < 256 && i < total; underWay++) send(payload(i++), () => --underWay < 128 && pump());
    };
    return pump();
  }
  const begin = now();
  const tick = () => {
    for (const due = Math.min(total, Math.floor(((now() - begin) / 1e9) * perSecond)); i < due; ) send(payload(i++), () => {});
    if (i < total) setTimeout(tick, 1);
  };
  tick();
}

const sendToParent = (text, done) => process.send(JSON.parse(text), done);

// Redis' protocol, as far as it is needed: lighter than any client library.
function redis(onMessage) {
  const socket = net.connect(port, '127.0.0.1').setNoDelay(true);
  let rest = '';
  socket.setEncoding('latin1').on('data', (data) => {
    const lines = (rest + data).split('\r\n');
    rest = lines.pop();
    lines.forEach(onMessage);
  });
  return socket;
}
const command = (...words) => `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`;

if (mode === 'cluster' && cluster.isPrimary) {
  const workers = [];
  let ready = 0;
  for (let k = 0; k <= receivers; k++) {
    workers.push(cluster.fork({ SLOT: k }).on('message', (message) => {
      if (message !== 'ready') for (let to = 1; to <= receivers; to++) workers[to].send(message);
      else if (++ready === receivers + 1) fs.writeFileSync(`${process.env.FOLDER}/ready`, '');
    }));
  }
  process.on('SIGUSR2', () => workers[0].send('go'));
} else if (mode === 'redis') {
  if (role === 'recv') {
    const heard = receive(number);
    redis((line) => line[0] === '{' && heard(JSON.parse(line))).write(command('SUBSCRIBE', 'c'));
  } else {
    const waiting = [];
    const socket = redis((line) => line[0] === ':' && waiting.shift()());
    process.on('SIGUSR2', () => run((text, done) => (waiting.push(done), socket.write(command('PUBLISH', 'c', text)))));
  }
  fs.writeFileSync(`${process.env.FOLDER}/ready-${number}`, '');
} else {
  const slot = Number(process.env.SLOT ?? process.env.SUPERVISOR_INSTANCE);
  const heard = receive(slot);
  process.on('message', (message) => (message === 'go' ? slot === 0 && run(sendToParent) : heard(message)));
  if (mode === 'cluster') process.send('ready');
}
