-- KEYS[1] is the prefix of Vumi's scheduler, ARGV[1] where the walk over its entries goes on, ARGV[2] about how many are
-- looked at, ARGV[3] a transport: for each entry whose payload is a message for it, its bucket, key and payload; entries
-- that are gone, which are forgotten; where the walk goes on, 0 at its end.
local V, found, lost = KEYS[1], {}, 0
local page = call('SSCAN', V .. 'scheduled_keys', ARGV[1], 'COUNT', ARGV[2])
local keys = page[2]
-- Their names are their times.
table.sort(keys)
for _, key in ipairs(keys) do
  local full = string.sub(key, 1, #V) == V and key or V .. key
  local payload = call('HGET', full, 'payload')
  if not payload then
    call('SREM', V .. 'scheduled_keys', key)
    lost = lost + 1
  else
    local read, message = pcall(cjson.decode, payload)
    if read and type(message) == 'table' and message.transport_name == ARGV[3] and message.message_id then
      found[#found + 1] = { string.match(full, 'scheduled%.(.*)%.%x+$') or '', key, payload, '' }
    end
  end
end
return { lost, found, page[1] }
