-- One load for wrk: a pause before each request of a connection, and one machine-readable line at the end.
-- GAP_MS: the pause; 0 sends the next request as soon as the answer is there. CONNECTIONS: how many there are.

local gap = tonumber(os.getenv("GAP_MS") or "0")
local connections = tonumber(os.getenv("CONNECTIONS") or "1")

if gap > 0 then
   local asked = 0

   -- wrk asks once before each request. The first request of each connection waits for a part of the gap, so that the
   -- connections do not all send at the same moment, now and in each gap after it.
   function delay()
      asked = asked + 1
      if asked <= connections then
         return math.floor(gap * asked / connections)
      end
      return gap
   end
end

function done(summary, latency, requests)
   local e = summary.errors
   print(string.format("LOAD %d %d %d %d %d",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      e.status + e.connect + e.read + e.write + e.timeout))
end
