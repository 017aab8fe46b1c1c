-- How the pipeline is doing.
SELECT * FROM pipeline_status;
