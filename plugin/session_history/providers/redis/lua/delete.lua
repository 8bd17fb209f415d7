-- What is damaged can be deleted, too, as long as its generation is known.
local function bury(session, mark, entries, ids)
  local head, past, raw, flaw = find(session, entries, ids)
  if flaw then
    return CORRUPT
  elseif not head and past and past.deleted then
    return past.mark == mark and DONE or NOTHING
  elseif head then
    dig(session, 1, head.generation, math.max(now(), head.active + 1), mark)
  end
  redis.call('HDEL', heads, session)
  redis.call('ZREM', index, session)
  redis.call('UNLINK', entries, ids)
  return head and DONE or NOTHING
end

insist_on_types()
local answer = {DONE}
for place = 2, #ARGV do
  answer[place] = bury(ARGV[place], ARGV[1], KEYS[2 * place], KEYS[2 * place + 1])
end
return answer
