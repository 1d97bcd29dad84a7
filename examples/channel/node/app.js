'use strict';
const fs = require('node:fs');
const http = require('node:http');
const channel = require('./channel');

const cache = new Map();
channel.subscribe('cache.*', (_, { message }) => cache.delete(message.slice('cache.'.length)));
channel.onLost = () => cache.clear();

const file = (key) => `${process.env.VALUES ?? '/tmp'}/value-${key}`;

http.createServer((request, response) => {
  const key = request.url.replace(/[^a-z0-9]/gi, '');
  if (request.method === 'PUT') {
    let body = '';
    request.on('data', (part) => (body += part)).on('end', () => {
      fs.writeFileSync(file(key), body);
      cache.delete(key);
      channel.publish(`cache.${key}`);
      response.end();
    });
    return;
  }
  if (!cache.has(key)) cache.set(key, fs.existsSync(file(key)) ? fs.readFileSync(file(key), 'utf8') : '');
  channel.metric('cached', cache.size);
  response.end(`${cache.get(key)} of slot ${process.env.SUPERVISOR_INSTANCE}\n`);
}).listen({ fd: 3 });
