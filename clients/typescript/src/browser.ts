import { createConnectTransport } from "@connectrpc/connect-web";
import { bearer, run } from "./harvester.js";

/** For a page: `harvest("http://localhost:50080", token, (line) => output.append(line, "\n"))`. */
export async function harvest(baseUrl: string, token: string, say: (line: string) => void): Promise<void> {
  const interceptors = token ? [bearer(token)] : [];
  // In JSON an Any would need a registry of the messages that it may hold.
  await run(createConnectTransport({ baseUrl, interceptors, useBinaryFormat: true }), say);
}
