-- Begins every script. Times are milliseconds since 1970 by the clock of Redis.
local call = redis.call
local function micros()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end
local function now()
  return math.floor(micros() / 1000)
end
local function int(number)
  return string.format('%.0f', number)
end
