-- KEYS[1] is a bucket: tokens at a time (seconds), and the share of full speed from a time on. Before that time it gets
-- nothing; after it, a twentieth more with every second, up to the share that it holds; there it rests, and then it gets
-- a hundredth more with every second, up to all of it. `rate_limits.rs` says why.
local GAIN, CREEP, REST = 0.05, 0.01, 120
local t = micros() / 1000000
local stored = call('HMGET', KEYS[1], 'tokens', 'at', 'share', 'from', 'hold')
local share, from, hold = tonumber(stored[3] or 1), tonumber(stored[4] or 0), tonumber(stored[5] or 1)
-- Seconds of full speed between `from` and so many seconds later.
local function gained(seconds)
  local back = (hold - share) / GAIN
  local on = math.max(back, REST)
  local rising = math.min(seconds, back)
  local creeping = math.max(0, math.min(seconds - on, (1 - hold) / CREEP))
  return share * rising + GAIN / 2 * rising * rising
    + hold * math.max(0, math.min(seconds, on) - back)
    + hold * creeping + CREEP / 2 * creeping * creeping
    + math.max(0, seconds - on - creeping)
end
-- The share of full speed at a time.
local function pace(time)
  local seconds, back = math.max(0, time - from), (hold - share) / GAIN
  if seconds < back then
    return share + GAIN * seconds
  end
  return math.min(1, hold + CREEP * math.max(0, seconds - math.max(back, REST)))
end
local at = tonumber(stored[2] or t)
if t < at then
  -- A clock that was set back takes nothing away and gives nothing.
  from, at = from - (at - t), t
end
-- Tokens now.
local function filled(per_second, burst)
  local tokens = tonumber(stored[1] or burst)
  local since, until_now = math.max(0, at - from), math.max(0, t - from)
  return math.min(burst, tokens + per_second * (gained(until_now) - gained(since)))
end
local function store(tokens, per_second, burst)
  local exact = function(number) return string.format('%.17g', number) end
  call('HSET', KEYS[1], 'tokens', exact(tokens), 'at', exact(t),
    'share', exact(share), 'from', exact(from), 'hold', exact(hold))
  -- Full and at full speed is as good as forgotten.
  local recovery = (1 - share) / GAIN
  if hold < 1 then
    recovery = math.max(recovery, REST) + (1 - hold) / CREEP
  end
  local rest = math.max(0, from - t) + recovery + (burst - math.min(0, tokens)) / per_second
  call('PEXPIRE', KEYS[1], int(math.ceil(rest * 1000)))
end
