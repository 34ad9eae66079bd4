-- pause in milliseconds, tokens a second, burst.
share = math.max(0.1, pace() / 2)
from = math.max(from, t + tonumber(ARGV[1]) / 1000)
store(math.min(0, tonumber(stored[1] or 0)), from, tonumber(ARGV[2]), tonumber(ARGV[3]))
