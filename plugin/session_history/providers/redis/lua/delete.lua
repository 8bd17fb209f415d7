local CALL_IDS_BYTES = 32 -- the newest first; so a delete is recognized after three later ones
local call_id, given = ARGV[1], ARGV[2]

-- A damaged session can be deleted, too, unless a newer version wrote it. A lost generation becomes a number that no
-- life of the session had, the seconds since the epoch: a turn in flight names the lost one and must be refused.
local function delete(session, entries, ids)
  local head, tombstone, raw, flaw = find(session, entries, ids)
  local before = read_tombstone(session)
  local call_ids = before and before.call_ids or ''
  if call_ids:find(call_id, 1, true) then
    return DONE -- this call was sent before; a session that lives now began after it
  elseif flaw and #raw > 0 and raw:byte() > 1 then
    return CORRUPT
  elseif flaw then
    head = {generation = math.floor(now() / 1000000), changed = 0, expires = 0}
  elseif not head and tombstone and tombstone.history == DELETED then
    return UNCHANGED
  end
  local large = large_seqs(ids)
  if large ~= given then
    return large
  elseif head then
    local deleted = math.max(now(), head.changed + 1)
    local times = {generation = head.generation, active = deleted, changed = deleted}
    write_tombstone(session, DELETED, times, call_id .. call_ids:sub(1, CALL_IDS_BYTES - #call_id))
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
for place = 3, #ARGV do
  answer[place - 1] = delete(ARGV[place], KEYS[2 * place - 2], KEYS[2 * place - 1])
end
if given ~= '' and type(answer[2]) == 'number' then -- the pieces of the one session
  for place = 6, #KEYS do
    redis.call('UNLINK', KEYS[place])
  end
end
return answer
