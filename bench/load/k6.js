// One method at a constant rate, for Grafana k6. bench/load/run.sh sets TARGET, EVENT, METHOD, RATE, SECONDS_LONG and
// CONNECTIONS in the environment. Each virtual user keeps one connection.
import grpc from "k6/net/grpc";
import { check } from "k6";
import exec from "k6/execution";

const method = __ENV.METHOD || "commit";
const event = __ENV.EVENT || "evt_load";
// Different in each run; otherwise the server would answer a second run from memory.
const run = `${Date.now()}`;

export const options = {
  scenarios: {
    load: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE || 500),
      timeUnit: "1s",
      duration: `${__ENV.SECONDS_LONG || 20}s`,
      // A user waits for each answer: several users correspond to one connection of another tool.
      preAllocatedVUs: 5 * Number(__ENV.CONNECTIONS || 4),
      maxVUs: 200,
    },
  },
  thresholds: {
    checks: ["rate==1"],
    // The bound for server hardware; a laptop that also runs k6 may miss it.
    grpc_req_duration: [`p(95)<${__ENV.P95_MS || 40}`],
    dropped_iterations: ["count==0"],
  },
};

const client = new grpc.Client();
client.load(["../../proto"], "inventory/v1/inventory.proto");
let connected = false;

function nextCall() {
  if (method === "check") {
    return ["CheckAvailability", { event_id: event, qty: 1 }];
  }
  const one = method === "repeat" ? "rsv_k6" : `rsv_${run}_${exec.scenario.iterationInTest}`;
  return ["CommitReservation", { reservation_id: one, event_id: event, qty: 1, payment_intent_id: "pay_load" }];
}

export default function () {
  if (!connected) {
    client.connect(__ENV.TARGET, { plaintext: true });
    connected = true;
  }
  const [name, message] = nextCall();
  const answer = client.invoke(`inventory.v1.Inventory/${name}`, message);
  check(answer, { "answered OK": (r) => r && r.status === grpc.StatusOK });
}
