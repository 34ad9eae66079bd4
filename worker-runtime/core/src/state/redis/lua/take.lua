-- cost, tokens a second, burst: 0, or microseconds until there may be enough. What costs more than the bucket holds
-- waits until it is full, and leaves a debt.
local cost, per_second, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens, at = tonumber(stored[1] or burst), tonumber(stored[2] or t)
local since, until_now = math.max(0, at - from), math.max(0, t - from)
if until_now > since then
  tokens = tokens + per_second * (gained(until_now) - gained(since))
end
tokens = math.min(burst, tokens)
local needed = math.min(cost, burst)
if t >= from and tokens >= needed - 0.000001 then
  store(tokens - cost, math.max(at, t), per_second, burst)
  return 0
end
local lacks = math.max(0, needed - tokens) / per_second
local ready = from + seconds(gained(until_now) + lacks)
return math.max(1, math.ceil((ready - t) * 1000000))
