-- LOAD: guarded install of a cell. It never touches the counters of a sale that
-- is going on: the cell must be absent, or the epoch newer and the cell at rest.
-- ARGV: 1 epoch, 2 fingerprint, 3 visible ms, 4 sellable ms, 5 end ms (0: none),
-- 6 cells, 7 rows 'sku,avail,sold;…'.
-- OK seq | DUP seq | STALE ep | BUSY what | SOLD sku sold | MISSING sku.
local list, new = rows(ARGV[7]), {}
for _, r in ipairs(list) do new[r[1]] = r[3] end
local m = redis.call('HMGET', META, 'ep', 'lfp', 'seq', 'pub', 'mode')
if m[1] then
  if m[1] == ARGV[1] and m[2] == ARGV[2] then return {'DUP', '1'} end
  if tonumber(ARGV[1]) <= tonumber(m[1]) then return {'STALE', m[1]} end
  if m[5] == 'F' then return {'BUSY', 'frozen'} end
  if redis.call('ZCARD', DUE) > 0 then return {'BUSY', 'holds'} end
  if m[4] ~= m[1] .. '-' .. m[3] then return {'BUSY', 'outbox'} end
  local all = redis.call('HGETALL', META)
  for i = 1, #all, 2 do
    local kind, sku = string.sub(all[i], 1, 3), string.sub(all[i], 4)
    if kind == 'ld:' and not new[sku] then return {'MISSING', sku} end
    if kind == 'sd:' and new[sku] and new[sku] ~= all[i + 1] then return {'SOLD', sku, all[i + 1]} end
  end
else
  redis.call('ZCARD', DUE)
end
local ev, set = {}, {'ep', ARGV[1], 'lfp', ARGV[2], 'mode', 'O', 'seq', '1',
  'vat', ARGV[3], 'sat', ARGV[4], 'end', ARGV[5]}
if not m[1] then set[#set + 1] = 'pub'; set[#set + 1] = '0-0' end
for i, r in ipairs(list) do
  ev[i] = r[1] .. ',' .. r[2] .. ',' .. r[2] .. ',' .. r[3]
  local f = {'av:' .. r[1], r[2], 'hd:' .. r[1], '0', 'sd:' .. r[1], r[3],
    'ld:' .. r[1], int(tonumber(r[2]) + tonumber(r[3]))}
  for _, v in ipairs(f) do set[#set + 1] = v end
end
emit(ARGV[1], '1', 'load', '', '', table.concat(ev, ';'), '0', '', '',
  table.concat({ARGV[3], ARGV[4], ARGV[5], ARGV[6]}, ','), clock())
-- 400 values a call: unpack is bounded by Lua's C stack.
for i = 1, #set, 400 do
  redis.call('HSET', META, unpack(set, i, math.min(i + 399, #set)))
end
return {'OK', '1'}
