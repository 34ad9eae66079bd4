-- message: the steps of its trail.
settle(ARGV[1], now())
return call('LRANGE', L .. 't:' .. ARGV[1], 1, -1)
