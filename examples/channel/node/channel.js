// The channel between workers for Node: topics, requests and metrics beyond
// process.send({ broadcast: true }). Outside the supervisor nothing happens.
'use strict';

const handlers = new Map(); // topic → function
const waiting = new Map(); // id → { resolve, reject }
let next = 0;

const ask = (supervisor) => process.send && process.connected && process.send({ supervisor });

const find = (topic) => {
  for (const [pattern, handler] of handlers) {
    if (pattern === topic || (pattern.endsWith('*') && topic.startsWith(pattern.slice(0, -1)))) return handler;
  }
};

process.on('message', async (message) => {
  const told = message?.supervisor;
  if (!told) return;
  if (told.message !== undefined) {
    find(told.message)?.(told.data, told);
  } else if (told.request !== undefined) {
    ask({ reply: told.id, data: (await find(told.request)?.(told.data, told)) ?? null });
  } else if (told.reply !== undefined) {
    const { resolve, reject } = waiting.get(told.reply) ?? {};
    waiting.delete(told.reply);
    if (told.error !== undefined) reject?.(new Error(told.error));
    else resolve?.(told.data);
  } else if (told.lost !== undefined) {
    module.exports.onLost(told.lost);
  } else if (told.error !== undefined) {
    console.error(`the channel: ${told.error}`);
  }
});

module.exports = {
  /** Sends data to the other workers that have subscribed to the topic. The last `retain` can be replayed. */
  publish: (topic, data = null, { to = 'others', retain } = {}) => ask({ publish: topic, data, to, retain }),
  /** Calls handler(data, from) for each message, and for the last `replay` before; what it returns is the reply to a request. */
  subscribe(topic, handler, { replay = false } = {}) {
    handlers.set(topic, handler);
    ask({ subscribe: topic, replay });
  },
  unsubscribe(topic) {
    handlers.delete(topic);
    ask({ unsubscribe: topic });
  },
  /** Asks one other worker that has subscribed to the topic. */
  request: (topic, data = null, { to, timeout = 5000 } = {}) =>
    new Promise((resolve, reject) => {
      const id = next++;
      waiting.set(id, { resolve, reject });
      if (!ask({ request: topic, id, data, to, timeout })) {
        waiting.delete(id);
        reject(new Error('there is no channel'));
      }
    }),
  ready: () => ask({ ready: true }),
  metric: (name, value) => ask({ metric: { [name]: value } }),
  /** Called when so many messages were dropped: what is cached may be old. */
  onLost: () => {},
};
