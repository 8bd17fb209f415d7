local MARKS = 32 -- bytes, the newest first: so many deletes are known again, while lives come and go

-- What is damaged can be deleted, too, as long as its generation is known.
local function bury(session, mark, entries, ids)
  local head, past, raw, flaw = find(session, entries, ids)
  local before = grave(session)
  local marks = before and before.marks or ''
  if marks:find(mark, 1, true) then
    return DONE -- by this call, when it was sent before: who lives now began since
  elseif flaw then
    return CORRUPT
  elseif not head and past and past.fate == DELETED then
    return NOTHING
  elseif head then
    dig(session, DELETED, head.generation, math.max(now(), head.active + 1), mark .. marks:sub(1, MARKS - #mark))
    if head.expires == 0 then
      redis.call('PERSIST', graves) -- which may have got another session's time
    end
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
