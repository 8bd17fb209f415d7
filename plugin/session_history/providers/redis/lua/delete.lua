local CALL_IDS_BYTES = 32 -- the newest first; so a delete is recognized after three later ones

-- A damaged session can be deleted, too, as long as its generation is known.
local function delete(session, call_id, entries, ids)
  local head, tombstone, raw, flaw = find(session, entries, ids)
  local before = read_tombstone(session)
  local call_ids = before and before.call_ids or ''
  if call_ids:find(call_id, 1, true) then
    return DONE -- this call was sent before; a session that lives now began after it
  elseif flaw then
    return CORRUPT
  elseif not head and tombstone and tombstone.history == DELETED then
    return UNCHANGED
  elseif head then
    local kept = call_ids:sub(1, CALL_IDS_BYTES - #call_id)
    write_tombstone(session, DELETED, head.generation, math.max(now(), head.active + 1), call_id .. kept)
    if head.expires == 0 then
      redis.call('PERSIST', tombstones) -- another session may have given the key an expiry
    end
  end
  redis.call('HDEL', heads, session)
  redis.call('ZREM', index, session)
  redis.call('UNLINK', entries, ids)
  return head and DONE or UNCHANGED
end

require_key_types()
local answer = {DONE}
for place = 2, #ARGV do
  answer[place] = delete(ARGV[place], ARGV[1], KEYS[2 * place], KEYS[2 * place + 1])
end
return answer
