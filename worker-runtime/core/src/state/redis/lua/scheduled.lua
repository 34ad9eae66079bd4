-- KEYS[1] is the prefix of Vumi's scheduler, ARGV[1] a limit, ARGV[2] a transport: for each entry whose payload is a message
-- for it, its bucket, key and payload. Entries that are gone are forgotten; how many of those.
local V, found, lost, lacking = KEYS[1], {}, 0, tonumber(ARGV[1])
local keys = call('SMEMBERS', V .. 'scheduled_keys')
-- Their names are their times.
table.sort(keys)
for _, key in ipairs(keys) do
  if lacking == 0 then
    break
  end
  local full = string.sub(key, 1, #V) == V and key or V .. key
  local payload = call('HGET', full, 'payload')
  if not payload then
    call('SREM', V .. 'scheduled_keys', key)
    lost = lost + 1
  else
    local read, message = pcall(cjson.decode, payload)
    if read and type(message) == 'table' and message.transport_name == ARGV[2] and message.message_id then
      lacking = lacking - 1
      found[#found + 1] = { string.match(full, 'scheduled%.(.*)%.%x+$') or '', key, payload, '' }
    end
  end
end
return { lost, found }
