-- slow_down
-- pause in milliseconds, tokens a second, burst.
local per_second, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens = filled(per_second, burst)
local now = pace(t)
if now >= 1 or t >= from + 0.5 then
  share, hold = math.max(0.1, now * 0.9), math.max(0.1, now * 0.97)
elseif t >= from then
  share = math.max(0.1, now / 2)
end
from = math.max(from, t + tonumber(ARGV[1]) / 1000)
store(math.min(0, tokens), per_second, burst)
