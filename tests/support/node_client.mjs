// A WebSocket client that was not written here: the one in Node. Joins a room, says what it hears, speaks once.
const [url, room] = process.argv.slice(2);
const socket = new WebSocket(url, ["tidings.v1.json"]);
const say = (message) => socket.send(JSON.stringify(message));
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  console.log(data);
  if (message.type === "welcome") say({ type: "join_room", room, id: "join" });
  if (message.type === "room_message") say({ type: "room_message", room, content: { heard: message.content }, id: "say" });
  if (message.id === "say") socket.close(1000);
};
socket.onclose = ({ code, wasClean }) => {
  console.log(JSON.stringify({ type: "closed", code, wasClean, protocol: socket.protocol }));
  process.exit(0);
};
