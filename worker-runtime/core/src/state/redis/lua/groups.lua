-- queue: its groups.
return call('SMEMBERS', groups)
