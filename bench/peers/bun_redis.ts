// Bun with Redis publish/subscribe, as several servers need it: every message crosses the bus.
import { RedisClient } from "bun";
import { serve } from "./bun_server.ts";

const url = process.env.REDIS_URL!;
const publisher = new RedisClient(url);
const subscriber = new RedisClient(url);
await publisher.connect();
await subscriber.connect();

const rooms = new Set<string>();
const deliver = serve((room, text) => {
  publisher.publish(room, text);
  return true;
}, async (room) => {
  if (rooms.has(room)) return;
  rooms.add(room);
  await subscriber.subscribe(room, (text, channel) => deliver(channel, text));
});
