-- keep. KEYS[1] counts one message.
local times = call('INCR', KEYS[1])
call('PEXPIRE', KEYS[1], ARGV[1])
return times
