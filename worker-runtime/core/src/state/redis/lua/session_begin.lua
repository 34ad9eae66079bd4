-- KEYS[1] is when a session began, ARGV[1] how long that is remembered, in milliseconds. The time is written as Vumi writes
-- it: seconds since 1970, as text.
local began = string.format('%.3f', micros() / 1000000)
call('SET', KEYS[1], began, 'PX', ARGV[1])
return began
