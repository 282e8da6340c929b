-- SNAPSHOT: everything that counts, in one cut.
-- NOCELL | OK now outbox-length live-holds, then field and value of the meta hash.
local all = redis.call('HGETALL', META)
if #all == 0 then return {'NOCELL'} end
local out = {'OK', int(clock()), int(redis.call('XLEN', OUT)), int(redis.call('ZCARD', DUE))}
for _, v in ipairs(all) do out[#out + 1] = v end
return out
