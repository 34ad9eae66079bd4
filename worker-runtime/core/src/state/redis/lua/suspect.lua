-- life, keep. KEYS[1] holds the lives in which one message was begun again.
call('SADD', KEYS[1], ARGV[1])
call('PEXPIRE', KEYS[1], ARGV[2])
return call('SCARD', KEYS[1])
