#!/bin/sh
# The accounts and their exact rights; the passwords come from the environment.
# It runs after 20-stock.sql, because a table must exist to be granted.
set -eu

MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql --protocol=socket -uroot <<SQL
-- The daemon reads the log and the tables that its modules name, and keeps two
-- tables of its own for the backfill.
CREATE USER 'rowtide'@'%' IDENTIFIED BY '$ROWTIDE_MYSQL_PASSWORD';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'rowtide'@'%';
GRANT CREATE, SELECT, INSERT, UPDATE ON rowtide.* TO 'rowtide'@'%';
GRANT SELECT ON shop.venue TO 'rowtide'@'%';
GRANT SELECT ON shop.event TO 'rowtide'@'%';
GRANT SELECT ON shop.session TO 'rowtide'@'%';
GRANT SELECT ON shop.price_tier TO 'rowtide'@'%';
GRANT SELECT ON shop.stock_cell TO 'rowtide'@'%';

-- The stock API's ledger. CREATE TABLE IF NOT EXISTS asks for CREATE even when the
-- table is there.
CREATE USER 'stock'@'%' IDENTIFIED BY '$STOCK_MYSQL_PASSWORD';
GRANT SELECT, INSERT, UPDATE, CREATE ON shop.stock_event TO 'stock'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON shop.stock_sku TO 'stock'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON shop.stock_cell TO 'stock'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON shop.stock_detail TO 'stock'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON shop.stock_flow TO 'stock'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON shop.cell_pos TO 'stock'@'%';

-- The web nodes' loaders, for keys that Redis does not have.
CREATE USER 'web'@'%' IDENTIFIED BY '$WEB_MYSQL_PASSWORD';
GRANT SELECT ON shop.venue TO 'web'@'%';
GRANT SELECT ON shop.event TO 'web'@'%';
GRANT SELECT ON shop.session TO 'web'@'%';
GRANT SELECT ON shop.price_tier TO 'web'@'%';
SQL
