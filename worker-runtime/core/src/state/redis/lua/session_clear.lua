-- KEYS[1] is a session: what it held.
local held = call('HGETALL', KEYS[1])
call('DEL', KEYS[1])
return held
