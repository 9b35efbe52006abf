// BullMQ's steady state: jobs in by addBulk, out by one Worker at a given concurrency.
// usage: node bench.js PORT CONCURRENCY SECONDS -> prints jobs per second
const { Queue, Worker } = require("bullmq");

const [port, concurrency, seconds] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const BACKLOG = 5000;
const BATCH = 500;

async function main() {
  const name = `bench-${process.pid}`;
  const queue = new Queue(name, { connection });
  const payload = "x".repeat(500);
  const options = { removeOnComplete: true };
  const batch = Array.from({ length: BATCH }, () => ({ name: "k", data: { payload }, opts: options }));
  let done = 0;
  let added = 0;
  let stopping = false;
  const worker = new Worker(name, async () => { done += 1; }, { connection, concurrency });
  worker.on("error", (error) => {
    console.error(error.message);
    process.exit(1);
  });
  const feed = (async () => {
    while (!stopping) {
      if (added - done < BACKLOG) {
        await queue.addBulk(batch);
        added += BATCH;
      } else {
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
  })();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const before = done;
  const started = process.hrtime.bigint();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const passed = Number(process.hrtime.bigint() - started) / 1e9;
  console.log(((done - before) / passed).toFixed(0));
  stopping = true;
  await feed;
  process.exit(0);
}

main();
