-- What a tenant does: wardkey psql --tenant acme --subject me -f docs/examples/ward.sql (after protect.sql)
insert into orders (accession, ordered_by, reason) values ('A-17', 'dr.grey', 'chest pain') returning id;
insert into results (order_id, code, value, unit)
  select id, '2160-0', 1.2, 'mg/dL' from orders where accession = 'A-17';

select o.accession, o.reason, r.value, r.unit from orders as o join results as r on r.order_id = o.id;

-- instead of insert … on conflict (accession) do update
select ward.upsert('orders', '[{"accession": "A-17", "ordered_by": "dr.yang"}]', key => '{accession}');
