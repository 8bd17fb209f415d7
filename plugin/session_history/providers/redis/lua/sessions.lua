local PORTION = 100 -- the heads come along, with their cards

local answer = redis.call('HSCAN', heads, ARGV[1], 'COUNT', PORTION)
local names = {}
for place = 1, #answer[2], 2 do
  names[#names + 1] = answer[2][place]
end
return {DONE, names, answer[1], redis.call('HLEN', heads)}
