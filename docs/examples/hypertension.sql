-- Prevalence of hypertension by age band and sex: of the adults alive at the end of the period whose blood pressure was ever measured,
-- those with a diagnosis or a systolic pressure of 140 mmHg or more by then.
-- wardkey access measures register hypertension docs/examples/hypertension.sql --floor 11
select gender, age_band, count(*) filter (where is_ill) as numerator, count(*) filter (where not is_ill) as complement
from (
  select p.gender, case when age < 40 then '18-39' when age < 65 then '40-64' else '65+' end as age_band,
    pressure >= 140 or exists (
      select from conditions as c
      where c.patient_id = p.id and c.code = '59621000' and c.onset_date < period.ends) as is_ill
  from patients as p
  cross join period
  cross join lateral (select extract(year from age(period.ends, p.birth_date)) as age) as a
  cross join lateral (
    select max(value) as pressure
    from observations as o
    where o.patient_id = p.id and o.code = '8480-6' and o.observed_at < period.ends) as m
  where age >= 18 and pressure is not null and (p.deceased is null or p.deceased >= period.ends)
) as counted
group by gender, age_band
