// Bun's own publish/subscribe in one process, without a bus: the fastest peer.
import { serve } from "./bun_server.ts";

serve(() => undefined);
