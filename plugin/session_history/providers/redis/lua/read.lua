local session, start, stop, id = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local head, tombstone, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing_part(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head then
  return {DONE, visible(tombstone, raw), {}}
end
local answer = {DONE, raw, start and redis.call('LRANGE', entries, ARGV[2], stop) or {}}
local found = id and redis.call('HGET', ids, id)
if found then
  local seq, damage = seq_of(head, found)
  if damage then
    return {CORRUPT, damage, raw}
  end
  answer[4], answer[5] = seq, redis.call('LINDEX', entries, seq - 1)
end
return answer
