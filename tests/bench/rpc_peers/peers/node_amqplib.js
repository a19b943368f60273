// amqplib on node, by hand, as aiormq_raw.py is: one reply queue, a promise for each call, JSON. It obeys what work.py says to all clients.
//
//     node node_amqplib.js client|server|apart amqp://guest:guest@127.0.0.1:5672/vhost
"use strict";
const amqplib = require("amqplib");
const readline = require("readline");

const SERVED = { server: ["bench", "flooded"], apart: ["apart"] };
const PREFETCH = 128;
let slow_s = 0.2;

const now_s = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as Python's
const say = (words) => process.stdout.write(`${typeof words === "string" ? words : JSON.stringify(words)}\n`);
const argument = (number) => ({
  number, uuid: "b40c0d6b-3d4f-4022-9f70-7cdb9f384f9d", display_name: "int32bit-test-1", host: "cmp1", vm_state: "active",
  flavor: { vcpus: 2, memory_mb: 2048, root_gb: 20 }, tags: ["a", "b", null],
});

async function serve(connection, topics) {
  let handled = 0, last_s = 0;
  const channel = await connection.createChannel();
  await channel.prefetch(PREFETCH);
  for (const topic of topics) {
    for (const queue of [`${topic}.echo`, topic]) {
      await channel.assertQueue(queue, { durable: false });
      await channel.consume(queue, (message) => {
        if (queue === "flooded") return setTimeout(() => channel.ack(message), slow_s * 1000);
        const body = JSON.parse(message.content.toString());
        if (queue === topic) { handled += 1; last_s = now_s(); } else {
          channel.sendToQueue(message.properties.replyTo, Buffer.from(JSON.stringify(body)), { correlationId: message.properties.correlationId });
        }
        channel.ack(message);
      });
    }
  }
  say("ready");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.startsWith("slow ")) slow_s = Number(line.split(" ")[1]);
    say({ handled, last_s });
  }
  process.exit(0);
}

async function client(connection) {
  const calls = await connection.createChannel(), casts = await connection.createConfirmChannel();
  const { queue: replies } = await calls.assertQueue("", { exclusive: true, durable: false });
  const waiting = new Map();
  let next = 0;
  await calls.consume(replies, (message) => {
    const id = message.properties.correlationId;
    waiting.get(id)(JSON.parse(message.content.toString()));
    waiting.delete(id);
  }, { noAck: true });
  const ask = (topic, body) => new Promise((resolve) => {
    const id = String(++next);
    waiting.set(id, resolve);
    calls.sendToQueue(`${topic}.echo`, Buffer.from(JSON.stringify(body)), { correlationId: id, replyTo: replies });
  });
  const cast = (topic, body) => new Promise((resolve, reject) =>
    casts.sendToQueue(topic, Buffer.from(JSON.stringify(body)), {}, (error) => (error ? reject(error) : resolve())));
  await ask("bench", argument(0));
  say({ first_call_at_s: now_s() });
  for await (const line of readline.createInterface({ input: process.stdin })) say(await obey(JSON.parse(line), ask, cast));
  process.exit(0);
}

async function obey(order, ask, cast) {
  const began_s = now_s(), times = [];
  let begun = 0, done = 0, wrong = 0, errors = 0, said = "", last_s = 0;
  const due_s = (number) => (order.per_s ? began_s + (number - 1) / order.per_s : now_s());
  async function repeat() {
    while (begun < order.most && due_s(begun + 1) - began_s < order.seconds) {
      const number = ++begun, early_s = due_s(number) - now_s();
      if (early_s > 0) await new Promise((resolve) => setTimeout(resolve, early_s * 1000));
      const started_s = order.per_s ? Math.min(now_s(), due_s(number) + 0.0015) : now_s();
      try {
        if (order.do === "calls") wrong += (await ask(order.topic, argument(number))).number !== number;
        else await cast(order.topic, argument(number));
        const at_s = now_s();
        times.push(at_s - started_s);
        if (at_s - began_s <= order.seconds) { done += 1; last_s = at_s; }
      } catch (error) { errors += 1; said = String(error).slice(0, 300); }
    }
  }
  await Promise.all(Array.from({ length: order.in_flight }, repeat));
  times.sort((a, b) => a - b);
  const at = (share) => (times.length ? times[Math.floor(times.length * share)] * 1000 : 0);
  const seconds = begun < order.most ? order.seconds : last_s - began_s;
  return { began_s, seconds, done, answered: times.length, wrong, errors, p50_ms: at(0.5), p99_ms: at(0.99), said };
}

(async () => {
  const [role, url] = process.argv.slice(2);
  const connection = await amqplib.connect(url, { noDelay: true }); // without it each call in turn takes 40 ms
  await (role === "client" ? client(connection) : serve(connection, SERVED[role]));
})();
