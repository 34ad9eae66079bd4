-- KEYS[1] is a bucket: tokens at a time (seconds), and the share of full speed from a time on. Before that time it gets
-- nothing; after it, a twentieth more with every second, up to all of it.
local GAIN = 0.05
local t = micros() / 1000000
local stored = call('HMGET', KEYS[1], 'tokens', 'at', 'share', 'from')
local share, from = tonumber(stored[3] or 1), tonumber(stored[4] or 0)
local ramp = (1 - share) / GAIN
-- Seconds of full speed between `from` and so many seconds later.
local function gained(seconds)
  local rising = math.min(seconds, ramp)
  return share * rising + GAIN / 2 * rising * rising + seconds - rising
end
-- The inverse.
local function seconds(gain)
  local rising = gained(ramp)
  if gain >= rising then
    return ramp + gain - rising
  end
  return (math.sqrt(share * share + 2 * GAIN * gain) - share) / GAIN
end
local function pace()
  return math.min(1, share + GAIN * math.max(0, t - from))
end
local function store(tokens, at, per_second, burst)
  local exact = function(number) return string.format('%.6f', number) end
  call('HSET', KEYS[1], 'tokens', exact(tokens), 'at', exact(at), 'share', exact(share), 'from', exact(from))
  -- Full and at full speed is as good as forgotten.
  local rest = math.max(at, from) - t + 1 / GAIN + (burst - math.min(0, tokens)) / per_second
  call('PEXPIRE', KEYS[1], int(math.ceil(rest * 1000)))
end
