-- scope, id. KEYS[1] is the prefix of what was seen.
return seen(KEYS[1] .. 'i:' .. ARGV[1] .. ':' .. ARGV[2])
