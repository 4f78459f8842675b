-- SPDX-License-Identifier: GPL-2.0-only
-- Two hundred thousand rows, an index, a join that sorts, and a database that is written anew.
create table readings (sensor integer, at integer, value text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
insert into readings select i * 7919 % 1000, i, hex(randomblob(16)) from n;
create index by_sensor on readings (sensor, value);
select count(*), min(sensor), max(at) from readings;
select sensor, count(distinct substr(value, 1, 2)) as kinds
from readings group by sensor order by kinds desc, sensor limit 3;
vacuum;
