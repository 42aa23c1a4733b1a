-- Prevalence of type 2 diabetes by age band and sex: of the patients alive at the end of the period, those with a diagnosis by then.
-- wardkey access measures register diabetes docs/examples/diabetes.sql --floor 11
select gender, age_band, count(*) filter (where is_ill) as numerator, count(*) filter (where not is_ill) as complement
from (
  select p.gender,
    case when age < 18 then '0-17' when age < 40 then '18-39' when age < 65 then '40-64' else '65+' end as age_band,
    exists (
      select from conditions as c
      where c.patient_id = p.id and c.code = '44054006' and c.onset_date < period.ends) as is_ill
  from patients as p
  cross join period
  cross join lateral (select extract(year from age(period.ends, p.birth_date)) as age) as a
  where p.birth_date < period.ends and (p.deceased is null or p.deceased >= period.ends)
) as counted
group by gender, age_band
