// cluster.js WORKERS SCRIPT: the primary that Node's documentation shows. It starts workers, and starts them again;
// on SIGHUP each gets its successor, which listens before the old one is asked to end.
const cluster = require('node:cluster');
const [workers, exec] = process.argv.slice(2);
const leaving = new Set();

cluster.setupPrimary({ exec, args: [] });
for (let i = 0; i < +workers; i++) cluster.fork();
cluster.on('exit', (worker) => { if (!leaving.delete(worker.id)) cluster.fork(); });

process.on('SIGHUP', async () => {
  for (const old of Object.values(cluster.workers).filter((worker) => !leaving.has(worker.id))) {
    await new Promise((done) => cluster.fork().once('listening', done));
    leaving.add(old.id);
    // A program without a handler is disconnected, which is as graceful as Node makes it.
    if (process.env.STYLE === 'plain') old.disconnect();
    else old.process.kill('SIGTERM');
  }
});
