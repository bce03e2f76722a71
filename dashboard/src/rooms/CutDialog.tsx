import { useState, type ReactElement } from "react";
import { Dialog } from "../parts/Dialog.js";
import { faultOf, explain } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useSession } from "../session/session.js";

const SECONDS = [3, 5, 10, 30];
const SAYINGS = ["Is anybody there?", "They cannot hear us.", "They will, in a moment."];

/** Cuts this page's connection for a while, to show that no message is lost. */
export function CutDialog({ room, onClose }: { room: string; onClose: () => void }): ReactElement {
  const { client, line } = useSession();
  const [seconds, setSeconds] = useState(5);
  const [meanwhile, setMeanwhile] = useState(true);
  const [fault, setFault] = useState<string | undefined>();

  const cut = async (): Promise<void> => {
    if (!line.cut(seconds * 1000)) return setFault("There is no WebSocket to cut at the moment.");
    if (!meanwhile) return onClose();
    try {
      // Over HTTP, as a server publishes: this page's own connection is cut.
      for (const content of SAYINGS) {
        await client.request("POST /api/publish", { body: { room, content, username: "somebody else" } });
      }
      onClose();
    } catch (caught) {
      setFault(`The connection is cut; but saying something meanwhile failed. ${explain(faultOf(caught))}`);
    }
  };

  return (
    <Dialog title="Cut the connection" onClose={onClose} onSubmit={() => void cut()}>
      <p className="note">
        The connection ends without a goodbye, as when a network fails. The page then comes back by itself, maybe to another
        gateway, tells where it stood in {room}, and gets what it missed.
      </p>
      <label>
        Stay away for at least
        <select value={seconds} onChange={(event) => setSeconds(Number(event.target.value))}>
          {SECONDS.map((each) => (
            <option key={each} value={each}>
              {each} seconds
            </option>
          ))}
        </select>
      </label>
      <label className="inline">
        <input type="checkbox" checked={meanwhile} onChange={(event) => setMeanwhile(event.target.checked)} />
        Meanwhile, have three things said in the room
      </label>
      {fault && <Notice tone="critical">{fault}</Notice>}
      <div className="row end">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="primary">
          Cut
        </button>
      </div>
    </Dialog>
  );
}
