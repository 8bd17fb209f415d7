local pieces = {}
for place, key in ipairs(KEYS) do
  pieces[place] = redis.call('HGET', key, ARGV[place])
end
return {DONE, pieces}
