-- take
-- cost, tokens a second, burst: 0, or microseconds until there may be enough, at most a day. What costs more than the bucket holds
-- waits until it is full, and leaves a debt.
local cost, per_second, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens = filled(per_second, burst)
local needed = math.min(cost, burst)
if t >= from and tokens >= needed - 0.000001 then
  store(tokens - cost, per_second, burst)
  return 0
end
-- It only gets faster meanwhile.
local begin = math.max(t, from)
local ready = begin + math.max(0, needed - tokens) / (per_second * pace(begin))
return math.max(1, math.ceil(math.min(ready - t, 24 * 3600) * 1000000))
