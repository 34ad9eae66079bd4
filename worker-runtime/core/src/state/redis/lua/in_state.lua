-- account, state, limit: messages, oldest first.
sweep(now(), 1000)
return call('ZRANGEBYSCORE', L .. 's:' .. ARGV[1] .. ':' .. ARGV[2], '-inf', '+inf', 'LIMIT', 0, ARGV[3])
