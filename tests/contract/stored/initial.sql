BEGIN TRANSACTION;
CREATE TABLE activations (
	id INTEGER NOT NULL, 
	adapter_id INTEGER, 
	activated_at DOUBLE NOT NULL, 
	CONSTRAINT pk_activations PRIMARY KEY (id), 
	CONSTRAINT fk_activations_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id)
);
CREATE TABLE adapters (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	manifest JSON NOT NULL, 
	archive BLOB, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_adapters PRIMARY KEY (id), 
	CONSTRAINT uq_adapters_sha256 UNIQUE (sha256)
);
INSERT INTO "adapters" VALUES(1,'stub','stub','{"name":"stub"}',NULL,1.79587674298501157759e+09);
CREATE TABLE agreements (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	n INTEGER NOT NULL, 
	raters TEXT NOT NULL, 
	selection TEXT NOT NULL, 
	slice TEXT NOT NULL, 
	statistics JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_agreements PRIMARY KEY (id), 
	CONSTRAINT fk_agreements_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE, 
	CONSTRAINT uq_agreements_job_id_raters_selection_slice UNIQUE (job_id, raters, selection, slice)
);
INSERT INTO "agreements" VALUES(1,1,7,'gold,adapter','all','all','{"n":7,"finite":null,"labels":["negative","positive","neg","pos"],"table":[[0,0,0,0],[0,0,0,0],[0,0,1,1],[0,0,2,3]],"observed":{"value":0.5714285714285714,"low":0.2504583645276572,"high":0.8417801447485302},"kappa":{"value":0.08695652173913038,"low":-0.5955901983975045,"high":0.6965865047740438},"ac1":{"value":0.49397590361445787,"low":-0.09299375987342552,"high":0.8261465073301952},"alpha":{"value":0.1333333333333332,"low":-0.5571529349154983,"high":0.7148138971704573},"by_label":[{"label":"negative","first":0,"second":0,"both":0,"specific":{"value":null,"low":null,"high":null},"of_first":{"value":null,"low":null,"high":null},"of_second":{"value":null,"low":null,"high":null},"bias":{"value":0.0,"low":-0.3543304350666875,"high":0.3543304350666875},"p_value":1.0},{"label":"positive","first":0,"second":0,"both":0,"specific":{"value":null,"low":null,"high":null},"of_first":{"value":null,"low":null,"high":null},"of_second":{"value":null,"low":null,"high":null},"bias":{"value":0.0,"low":-0.3543304350666875,"high":0.3543304350666875},"p_value":1.0},{"label":"neg","first":2,"second":3,"both":1,"specific":{"value":0.4,"low":0.0871993424525809,"high":0.823085062280651},"of_first":{"value":0.5,"low":0.09453120573423074,"high":0.9054687942657693},"of_second":{"value":0.3333333333333333,"low":0.06149194472039615,"high":0.7923403991979523},"bias":{"value":-0.14285714285714285,"low":-0.5228995562212206,"high":0.30364536880834103},"p_value":1.0},{"label":"pos","first":5,"second":4,"both":3,"specific":{"value":0.6666666666666666,"low":0.31595441298429383,"high":0.8964809123179994},"of_first":{"value":0.6,"low":0.2307242812760128,"high":0.882379225767352},"of_second":{"value":0.75,"low":0.30064184258240184,"high":0.9544127391902995},"bias":{"value":0.14285714285714285,"low":-0.3036453688083409,"high":0.5228995562212206},"p_value":1.0}],"marginal":{"method":"McNemar, exact","p_value":1.0,"statistic":null,"degrees":null},"unanswered":0,"gold":{"n":8,"labelled":7,"accuracy":{"value":0.5,"low":0.21521606221387757,"high":0.7847839377861224},"by_label":[{"label":"negative","support":0,"given":0,"precision":null,"recall":null,"f1":null},{"label":"positive","support":0,"given":0,"precision":null,"recall":null,"f1":null},{"label":"neg","support":2,"given":3,"precision":0.3333333333333333,"recall":0.5,"f1":0.4},{"label":"pos","support":6,"given":4,"precision":0.75,"recall":0.5,"f1":0.6}],"macro_f1":0.5,"confusion":{"negative":{"negative":0,"positive":0,"neg":0,"pos":0},"positive":{"negative":0,"positive":0,"neg":0,"pos":0},"neg":{"negative":0,"positive":0,"neg":1,"pos":1},"pos":{"negative":0,"positive":0,"neg":2,"pos":3}},"auroc":null,"calibration":{"n":7,"rms":0.0,"ece":0.1785714285714286,"band":[0.03571428571428571,0.32142857142857145],"bins":[{"lower":0.75,"upper":0.75,"n":7,"confidence":0.75,"accuracy":0.5714285714285714}]}},"kind":"pair"}',1.79587674318999958042e+09);
INSERT INTO "agreements" VALUES(2,1,7,'gold,final','all','all','{"n":7,"finite":null,"labels":["negative","positive","neg","pos"],"table":[[0,0,0,0],[0,0,0,0],[0,0,1,1],[0,0,2,3]],"observed":{"value":0.5714285714285714,"low":0.2504583645276572,"high":0.8417801447485302},"kappa":{"value":0.08695652173913038,"low":-0.5955901983975045,"high":0.6965865047740438},"ac1":{"value":0.49397590361445787,"low":-0.09299375987342552,"high":0.8261465073301952},"alpha":{"value":0.1333333333333332,"low":-0.5571529349154983,"high":0.7148138971704573},"by_label":[{"label":"negative","first":0,"second":0,"both":0,"specific":{"value":null,"low":null,"high":null},"of_first":{"value":null,"low":null,"high":null},"of_second":{"value":null,"low":null,"high":null},"bias":{"value":0.0,"low":-0.3543304350666875,"high":0.3543304350666875},"p_value":1.0},{"label":"positive","first":0,"second":0,"both":0,"specific":{"value":null,"low":null,"high":null},"of_first":{"value":null,"low":null,"high":null},"of_second":{"value":null,"low":null,"high":null},"bias":{"value":0.0,"low":-0.3543304350666875,"high":0.3543304350666875},"p_value":1.0},{"label":"neg","first":2,"second":3,"both":1,"specific":{"value":0.4,"low":0.0871993424525809,"high":0.823085062280651},"of_first":{"value":0.5,"low":0.09453120573423074,"high":0.9054687942657693},"of_second":{"value":0.3333333333333333,"low":0.06149194472039615,"high":0.7923403991979523},"bias":{"value":-0.14285714285714285,"low":-0.5228995562212206,"high":0.30364536880834103},"p_value":1.0},{"label":"pos","first":5,"second":4,"both":3,"specific":{"value":0.6666666666666666,"low":0.31595441298429383,"high":0.8964809123179994},"of_first":{"value":0.6,"low":0.2307242812760128,"high":0.882379225767352},"of_second":{"value":0.75,"low":0.30064184258240184,"high":0.9544127391902995},"bias":{"value":0.14285714285714285,"low":-0.3036453688083409,"high":0.5228995562212206},"p_value":1.0}],"marginal":{"method":"McNemar, exact","p_value":1.0,"statistic":null,"degrees":null},"unanswered":0,"gold":{"n":8,"labelled":7,"accuracy":{"value":0.5,"low":0.21521606221387757,"high":0.7847839377861224},"by_label":[{"label":"negative","support":0,"given":0,"precision":null,"recall":null,"f1":null},{"label":"positive","support":0,"given":0,"precision":null,"recall":null,"f1":null},{"label":"neg","support":2,"given":3,"precision":0.3333333333333333,"recall":0.5,"f1":0.4},{"label":"pos","support":6,"given":4,"precision":0.75,"recall":0.5,"f1":0.6}],"macro_f1":0.5,"confusion":{"negative":{"negative":0,"positive":0,"neg":0,"pos":0},"positive":{"negative":0,"positive":0,"neg":0,"pos":0},"neg":{"negative":0,"positive":0,"neg":1,"pos":1},"pos":{"negative":0,"positive":0,"neg":2,"pos":3}},"auroc":null,"calibration":{"n":7,"rms":0.0,"ece":0.1785714285714286,"band":[0.03571428571428571,0.32142857142857145],"bins":[{"lower":0.75,"upper":0.75,"n":7,"confidence":0.75,"accuracy":0.5714285714285714}]}},"kind":"pair"}',1.79587674318999958042e+09);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('initial');
CREATE TABLE batches (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id INTEGER NOT NULL, 
	lane TEXT NOT NULL, 
	state TEXT NOT NULL, 
	rank INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	first_row INTEGER NOT NULL, 
	last_row INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	scorer_id INTEGER, 
	parent_id INTEGER, 
	lease_token TEXT, 
	task_id TEXT, 
	error TEXT, 
	lease_until DOUBLE, 
	published_at DOUBLE, 
	not_before DOUBLE, 
	claimed_at DOUBLE, 
	finished_at DOUBLE, 
	timings JSON, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT ck_batches_ck_batches_lane CHECK (lane IN ('adapter', 'openai')), 
	CONSTRAINT ck_batches_ck_batches_state CHECK (state IN ('queued', 'running', 'done', 'split', 'failed', 'cancelled', 'submitted', 'parked')), 
	CONSTRAINT fk_batches_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE, 
	CONSTRAINT fk_batches_parent_id FOREIGN KEY(parent_id) REFERENCES batches (id) ON DELETE CASCADE
);
INSERT INTO "batches" VALUES(1,1,'adapter','done',0,1,1,4,4,1,NULL,NULL,NULL,'task 1',NULL,NULL,1.79587674306998395915e+09,NULL,1.79587674307698464391e+09,1.79587674309199142458e+09,'{"score_s":0.001}',1.7958767430449991226e+09);
INSERT INTO "batches" VALUES(2,1,'adapter','done',0,2,5,8,4,1,NULL,NULL,NULL,'task 2',NULL,NULL,1.79587674306998395915e+09,NULL,1.79587674309999799728e+09,1.79587674310100364684e+09,'{"score_s":0.001}',1.7958767430449991226e+09);
INSERT INTO "batches" VALUES(3,2,'adapter','done',0,1,1,4,4,1,NULL,NULL,NULL,'task 3',NULL,NULL,1.79587674320798373222e+09,NULL,1.79587674320898962017e+09,1.79587674320999526973e+09,'{"score_s":0.001}',1.79587674320400047297e+09);
INSERT INTO "batches" VALUES(4,2,'adapter','done',0,2,5,6,2,1,NULL,NULL,NULL,'task 4',NULL,NULL,1.79587674320798373222e+09,NULL,1.79587674321301269536e+09,1.79587674321301269536e+09,'{"score_s":0.001}',1.79587674320400047297e+09);
INSERT INTO "batches" VALUES(5,2,'openai','done',0,0,0,0,4,1,2,NULL,NULL,'',NULL,NULL,1.79587674323200273515e+09,NULL,1.7958767432340145111e+09,1.79587674324000930786e+09,NULL,1.79587674322600817679e+09);
INSERT INTO "batches" VALUES(6,2,'openai','done',0,0,0,0,2,1,2,NULL,NULL,'',NULL,NULL,1.79587674323200273515e+09,NULL,1.79587674323699188227e+09,1.79587674324700975422e+09,NULL,1.79587674322600817679e+09);
INSERT INTO "batches" VALUES(7,3,'adapter','done',0,1,1,3,3,1,NULL,NULL,NULL,'task 7',NULL,NULL,1.79587674328700160975e+09,NULL,1.79587674328800725939e+09,1.79587674328901314739e+09,'{"score_s":0.001}',1.79587674327798938744e+09);
INSERT INTO "batches" VALUES(9,5,'adapter','cancelled',0,1,1,3,3,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79587674353101539614e+09,NULL,1.79587674351999163624e+09);
INSERT INTO "batches" VALUES(10,6,'adapter','queued',0,1,1,3,3,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79587674354099321363e+09);
INSERT INTO "batches" VALUES(11,7,'openai','running',0,0,0,0,3,1,2,NULL,'eb46523557c1b0bd5e75df3ad374a600','',NULL,1.79587680358199095723e+09,1.79587674358199095728e+09,NULL,1.79587674358199095728e+09,NULL,NULL,1.79587674357398462297e+09);
INSERT INTO "batches" VALUES(12,8,'openai','submitted',0,0,0,0,3,0,2,NULL,NULL,'',NULL,NULL,NULL,1.79587680362600588803e+09,1.7958767436219825745e+09,NULL,NULL,1.79587674360999321934e+09);
INSERT INTO "batches" VALUES(13,9,'adapter','done',0,1,1,4,4,1,NULL,NULL,NULL,'t13',NULL,NULL,1.79587674366700363157e+09,NULL,1.79587674366800928112e+09,1.79587674367199230194e+09,'{"score_s":0.001}',1.79587674364600181583e+09);
INSERT INTO "batches" VALUES(14,9,'adapter','queued',0,2,5,8,4,0,NULL,NULL,NULL,'t14',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79587674364600181583e+09);
INSERT INTO "batches" VALUES(15,9,'adapter','queued',0,3,9,12,4,1,NULL,NULL,NULL,'t15','the device was away',NULL,NULL,NULL,1.79587674366901516908e+09,NULL,NULL,1.79587674364600181583e+09);
INSERT INTO "batches" VALUES(16,9,'adapter','running',0,4,13,16,4,1,NULL,NULL,'197a32454074ba01be7a677720bf0621','t16',NULL,1.79587680366998076438e+09,1.79587674366700363157e+09,NULL,1.79587674366998076443e+09,NULL,NULL,1.79587674364600181583e+09);
INSERT INTO "batches" VALUES(17,9,'adapter','queued',0,5,17,20,4,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79587674364600181583e+09);
INSERT INTO "batches" VALUES(18,9,'adapter','queued',0,6,21,22,2,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79587674364600181583e+09);
INSERT INTO "batches" VALUES(19,10,'adapter','queued',0,1,1,4,4,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79587674369898891448e+09);
CREATE TABLE bulks (
	batch_id INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	client_key TEXT DEFAULT '' NOT NULL, 
	file_id TEXT, 
	remote_id TEXT, 
	error TEXT, 
	created_at DOUBLE NOT NULL, 
	creating_at DOUBLE, 
	submitted_at DOUBLE, 
	collected_at DOUBLE, 
	CONSTRAINT pk_bulks PRIMARY KEY (batch_id), 
	CONSTRAINT ck_bulks_ck_bulks_state CHECK (state IN ('packed', 'submitted', 'collected', 'failed')), 
	CONSTRAINT fk_bulks_batch_id FOREIGN KEY(batch_id) REFERENCES batches (id) ON DELETE CASCADE, 
	CONSTRAINT uq_bulks_remote_id UNIQUE (remote_id)
);
INSERT INTO "bulks" VALUES(12,'submitted','c041257340172e60f558f9f49a4b8ba3','file-1','batch-1',NULL,1.79587674361498212814e+09,1.79587674362399435041e+09,1.79587674363501811026e+09,NULL);
CREATE TABLE corrections (
	job_id INTEGER NOT NULL, 
	row_no INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	kind TEXT, 
	author TEXT, 
	note TEXT, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_corrections PRIMARY KEY (job_id, row_no), 
	CONSTRAINT fk_corrections_job_id_row_no FOREIGN KEY(job_id, row_no) REFERENCES reviews (job_id, row_no) ON DELETE CASCADE
);
INSERT INTO "corrections" VALUES(1,2,'neg',NULL,'ann','a note',1795876743.197);
CREATE TABLE deleted_jobs (
	id INTEGER NOT NULL, 
	spent_nanos INTEGER NOT NULL, 
	deleted_at DOUBLE NOT NULL, 
	CONSTRAINT pk_deleted_jobs PRIMARY KEY (id)
);
INSERT INTO "deleted_jobs" VALUES(4,0,1.79587674348301744461e+09);
CREATE TABLE distillations (
	job_id INTEGER NOT NULL, 
	stage TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	rounds INTEGER NOT NULL, 
	answers INTEGER NOT NULL, 
	held_out INTEGER NOT NULL, 
	seed INTEGER NOT NULL, 
	figures JSON, 
	CONSTRAINT pk_distillations PRIMARY KEY (job_id), 
	CONSTRAINT ck_distillations_ck_distillations_stage CHECK (stage IN ('reading', 'asking', 'training', 'measuring', 'labelling')), 
	CONSTRAINT fk_distillations_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE guarantees (
	job_id INTEGER NOT NULL, 
	reviews INTEGER NOT NULL, 
	ranked INTEGER NOT NULL, 
	allowed INTEGER NOT NULL, 
	sample INTEGER NOT NULL, 
	tolerated INTEGER NOT NULL, 
	free INTEGER, 
	cut INTEGER, 
	ranks_sha256 TEXT NOT NULL, 
	claim TEXT, 
	drawn_at DOUBLE NOT NULL, 
	cut_at DOUBLE, 
	certificate JSON, 
	CONSTRAINT pk_guarantees PRIMARY KEY (job_id), 
	CONSTRAINT fk_guarantees_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	identity TEXT NOT NULL, 
	name TEXT NOT NULL, 
	source TEXT NOT NULL, 
	state TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	adapter_id INTEGER NOT NULL, 
	oracle_id INTEGER, 
	max_cost_nanos INTEGER, 
	spent_nanos INTEGER DEFAULT 0 NOT NULL, 
	oracle_error TEXT, 
	texts TEXT DEFAULT 'kept' NOT NULL, 
	priority INTEGER NOT NULL, 
	batch_size INTEGER NOT NULL, 
	records_read INTEGER NOT NULL, 
	max_rejects DOUBLE NOT NULL, 
	created_at DOUBLE NOT NULL, 
	options JSON NOT NULL, 
	languages JSON, 
	gold_left_out JSON, 
	error TEXT, 
	sealed_at DOUBLE, 
	finished_at DOUBLE, 
	measured_at DOUBLE, 
	CONSTRAINT ck_jobs_ck_jobs_state CHECK (state IN ('reading', 'running', 'done', 'stopped', 'cancelled', 'deleting')), 
	CONSTRAINT ck_jobs_ck_jobs_texts CHECK (texts IN ('kept', 'deleting', 'deleted')), 
	CONSTRAINT fk_jobs_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id), 
	CONSTRAINT uq_jobs_identity UNIQUE (identity)
);
INSERT INTO "jobs" VALUES(1,'done','reviews.csv','/data/reviews.csv','done','adapter',1,NULL,NULL,0,NULL,'kept',0,4,9,0.05,1.79587674302500343321e+09,'{}',NULL,NULL,NULL,1.79587674305099391936e+09,1.7958767431139991284e+09,NULL);
INSERT INTO "jobs" VALUES(2,'job 0','reviews.csv','/data/reviews.csv','done','cascade --below 0.9 --audit 0.5 --audit-seed 3',1,2,1000000000,60000000,NULL,'kept',0,4,6,0.05,1.79587674320098304747e+09,'{}',NULL,NULL,NULL,1.79587674320400047297e+09,1.79587674324898123739e+09,NULL);
INSERT INTO "jobs" VALUES(3,'deleted 3','reviews.csv','/data/reviews.csv','done','adapter',1,NULL,NULL,0,NULL,'deleted',0,4,3,0.05,1.79587674327601790427e+09,'{}',NULL,NULL,NULL,1.79587674328398418425e+09,1.79587674329500794406e+09,NULL);
INSERT INTO "jobs" VALUES(5,'job 3','reviews.csv','/data/reviews.csv','cancelled','adapter',1,NULL,NULL,0,NULL,'kept',0,4,3,0.05,1.79587674351500272752e+09,'{}',NULL,NULL,NULL,1.79587674352099752432e+09,1.79587674352900385863e+09,NULL);
INSERT INTO "jobs" VALUES(6,'job 4','reviews.csv','/data/reviews.csv','stopped','adapter',1,NULL,NULL,0,NULL,'kept',0,4,3,0.05,1.79587674353399276731e+09,'{}',NULL,NULL,'the adapter has lost its head',1.79587674354099321363e+09,1.79587674354799389838e+09,NULL);
INSERT INTO "jobs" VALUES(7,'job 5','reviews.csv','/data/reviews.csv','running','oracle',1,2,NULL,60000000,NULL,'kept',0,4,3,0.05,1.79587674355499458313e+09,'{}',NULL,NULL,NULL,1.79587674356199502949e+09,NULL,NULL);
INSERT INTO "jobs" VALUES(8,'job 6','reviews.csv','/data/reviews.csv','running','oracle',1,2,NULL,0,NULL,'kept',0,4,3,0.05,1.79587674359398031228e+09,'{}',NULL,NULL,NULL,1.7958767435980036259e+09,NULL,NULL);
INSERT INTO "jobs" VALUES(9,'job 7','reviews.csv','/data/reviews.csv','running','adapter',1,NULL,NULL,0,NULL,'kept',0,4,22,0.05,1.79587674364298439024e+09,'{}',NULL,NULL,NULL,1.79587674365099072455e+09,NULL,NULL);
INSERT INTO "jobs" VALUES(10,'job 8','reviews.csv','/data/reviews.csv','reading','adapter',1,NULL,NULL,0,NULL,'kept',0,4,4,0.05,1.79587674369098234177e+09,'{}',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE label_days (
	job_id INTEGER NOT NULL, 
	day INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	source TEXT NOT NULL, 
	n INTEGER NOT NULL, 
	CONSTRAINT pk_label_days PRIMARY KEY (job_id, day, label, source), 
	CONSTRAINT fk_label_days_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "label_days" VALUES(1,20785,'neg','adapter',3);
INSERT INTO "label_days" VALUES(1,20785,'pos','adapter',4);
CREATE TABLE labels (
	job_id INTEGER NOT NULL, 
	row_no INTEGER NOT NULL, 
	rater TEXT NOT NULL, 
	scorer_id INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	score DOUBLE, 
	probabilities JSON, 
	batch_id INTEGER, 
	tokens INTEGER, 
	cost_nanos INTEGER, 
	response_model TEXT, 
	request_id TEXT, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_labels PRIMARY KEY (job_id, row_no, rater), 
	CONSTRAINT ck_labels_ck_labels_rater CHECK (rater IN ('adapter', 'oracle')), 
	CONSTRAINT fk_labels_job_id_row_no FOREIGN KEY(job_id, row_no) REFERENCES reviews (job_id, row_no) ON DELETE CASCADE, 
	CONSTRAINT fk_labels_scorer_id FOREIGN KEY(scorer_id) REFERENCES scorers (id)
);
INSERT INTO "labels" VALUES(1,1,'adapter',1,'neg',0.75,NULL,1,NULL,NULL,NULL,NULL,1.79587674309199142458e+09);
INSERT INTO "labels" VALUES(1,2,'adapter',1,'pos',0.75,NULL,1,NULL,NULL,NULL,NULL,1.79587674309199142458e+09);
INSERT INTO "labels" VALUES(1,3,'adapter',1,'neg',0.75,NULL,1,NULL,NULL,NULL,NULL,1.79587674309199142458e+09);
INSERT INTO "labels" VALUES(1,4,'adapter',1,'pos',0.75,NULL,1,NULL,NULL,NULL,NULL,1.79587674309199142458e+09);
INSERT INTO "labels" VALUES(1,6,'adapter',1,'pos',0.75,NULL,2,NULL,NULL,NULL,NULL,1.79587674310100364684e+09);
INSERT INTO "labels" VALUES(1,7,'adapter',1,'neg',0.75,NULL,2,NULL,NULL,NULL,NULL,1.79587674310100364684e+09);
INSERT INTO "labels" VALUES(1,8,'adapter',1,'pos',0.75,NULL,2,NULL,NULL,NULL,NULL,1.79587674310100364684e+09);
INSERT INTO "labels" VALUES(2,1,'adapter',1,'neg',0.75,NULL,3,NULL,NULL,NULL,NULL,1.79587674320999526973e+09);
INSERT INTO "labels" VALUES(2,2,'adapter',1,'pos',0.75,NULL,3,NULL,NULL,NULL,NULL,1.79587674320999526973e+09);
INSERT INTO "labels" VALUES(2,3,'adapter',1,'neg',0.75,NULL,3,NULL,NULL,NULL,NULL,1.79587674320999526973e+09);
INSERT INTO "labels" VALUES(2,4,'adapter',1,'pos',0.75,NULL,3,NULL,NULL,NULL,NULL,1.79587674320999526973e+09);
INSERT INTO "labels" VALUES(2,5,'adapter',1,'neg',0.75,NULL,4,NULL,NULL,NULL,NULL,1.79587674321301269536e+09);
INSERT INTO "labels" VALUES(2,6,'adapter',1,'pos',0.75,NULL,4,NULL,NULL,NULL,NULL,1.79587674321301269536e+09);
INSERT INTO "labels" VALUES(2,1,'oracle',2,'neg',0.9,NULL,5,12,10000000,'gpt-1','req-1',1.79587674324399232863e+09);
INSERT INTO "labels" VALUES(2,3,'oracle',2,'neg',0.9,NULL,5,12,10000000,'gpt-1','req-1',1.79587674324399232863e+09);
INSERT INTO "labels" VALUES(2,4,'oracle',2,'pos',0.9,NULL,5,12,10000000,'gpt-1','req-1',1.79587674324399232863e+09);
INSERT INTO "labels" VALUES(2,5,'oracle',2,'neg',0.9,NULL,6,12,10000000,'gpt-1','req-1',1.79587674324700975422e+09);
INSERT INTO "labels" VALUES(2,6,'oracle',2,'pos',0.9,NULL,6,12,10000000,'gpt-1','req-1',1.79587674324700975422e+09);
INSERT INTO "labels" VALUES(3,1,'adapter',1,'neg',0.75,NULL,7,NULL,NULL,NULL,NULL,1.79587674328901314739e+09);
INSERT INTO "labels" VALUES(3,2,'adapter',1,'pos',0.75,NULL,7,NULL,NULL,NULL,NULL,1.79587674328901314739e+09);
INSERT INTO "labels" VALUES(3,3,'adapter',1,'neg',0.75,NULL,7,NULL,NULL,NULL,NULL,1.79587674328901314739e+09);
INSERT INTO "labels" VALUES(9,1,'adapter',1,'neg',0.75,NULL,13,NULL,NULL,NULL,NULL,1.79587674367199230194e+09);
INSERT INTO "labels" VALUES(9,2,'adapter',1,'pos',0.75,NULL,13,NULL,NULL,NULL,NULL,1.79587674367199230194e+09);
INSERT INTO "labels" VALUES(9,3,'adapter',1,'neg',0.75,NULL,13,NULL,NULL,NULL,NULL,1.79587674367199230194e+09);
INSERT INTO "labels" VALUES(9,4,'adapter',1,'pos',0.75,NULL,13,NULL,NULL,NULL,NULL,1.79587674367199230194e+09);
CREATE TABLE measurings (
	job_id INTEGER NOT NULL, 
	due_at DOUBLE NOT NULL, 
	token TEXT, 
	attempts INTEGER NOT NULL, 
	CONSTRAINT pk_measurings PRIMARY KEY (job_id), 
	CONSTRAINT fk_measurings_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "measurings" VALUES(1,1.79587674319800591473e+09,NULL,0);
INSERT INTO "measurings" VALUES(2,1.79587674324998712539e+09,NULL,0);
INSERT INTO "measurings" VALUES(3,1.79587674329601383214e+09,NULL,0);
CREATE TABLE rejects (
	job_id INTEGER NOT NULL, 
	row_no INTEGER NOT NULL, 
	line_no INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	external_id TEXT, 
	attributes JSON, 
	CONSTRAINT pk_rejects PRIMARY KEY (job_id, row_no), 
	CONSTRAINT ck_rejects_ck_rejects_kind CHECK (kind IN ('unreadable', 'without_text', 'other_language')), 
	CONSTRAINT fk_rejects_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "rejects" VALUES(1,9,10,'unreadable','it isn''t UTF-8',NULL,NULL);
CREATE TABLE requests (
	job_id INTEGER NOT NULL, 
	row_no INTEGER NOT NULL, 
	scorer_id INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	state TEXT NOT NULL, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	text_sha256 BLOB DEFAULT '' NOT NULL, 
	follows BOOLEAN DEFAULT 0 NOT NULL, 
	detail TEXT, 
	batch_id INTEGER, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_requests PRIMARY KEY (job_id, row_no), 
	CONSTRAINT ck_requests_ck_requests_reason CHECK (reason IN ('policy', 'fallback', 'cascade', 'audit', 'language', 'guarantee', 'training', 'held_out')), 
	CONSTRAINT ck_requests_ck_requests_state CHECK (state IN ('open', 'packed', 'labelled', 'refused', 'unanswered', 'failed')), 
	CONSTRAINT fk_requests_job_id_row_no FOREIGN KEY(job_id, row_no) REFERENCES reviews (job_id, row_no) ON DELETE CASCADE, 
	CONSTRAINT fk_requests_scorer_id FOREIGN KEY(scorer_id) REFERENCES scorers (id), 
	CONSTRAINT fk_requests_batch_id FOREIGN KEY(batch_id) REFERENCES batches (id) ON DELETE SET NULL
);
INSERT INTO "requests" VALUES(2,1,2,'cascade','labelled',0,X'7261A8E54E29D4BE09937F59CDDE3F88CC45ACAE9F94EE714B1184303A3AD4DB',0,NULL,5,1.79587674320999526973e+09);
INSERT INTO "requests" VALUES(2,2,2,'cascade','refused',0,X'2F9EC26FCD422F7835DC5C71AC22901C45994EFCA7B0998F580B9E31ECEFAD2A',0,'it wouldn''t say',5,1.79587674320999526973e+09);
INSERT INTO "requests" VALUES(2,3,2,'cascade','labelled',0,X'70EAEE4084EE55F50C41B58D3C33770C0151B0AFD2D159653A049C16AB7A61C0',0,NULL,5,1.79587674320999526973e+09);
INSERT INTO "requests" VALUES(2,4,2,'cascade','labelled',0,X'64810D4830B9807944B59C27C601768C7669F9D56768421CC1E0EAFBA7227E61',0,NULL,5,1.79587674320999526973e+09);
INSERT INTO "requests" VALUES(2,5,2,'cascade','labelled',0,X'59F3D54B16854913B706E5AA5C4168ED1E482E68435416390AC68001E2EB754F',0,NULL,6,1.79587674321401858336e+09);
INSERT INTO "requests" VALUES(2,6,2,'cascade','labelled',0,X'7736B55A63B2B07AA339893EA1B7F894AE024E8F4BD9B30FE1925459AFEBBCD8',0,NULL,6,1.79587674321401858336e+09);
INSERT INTO "requests" VALUES(7,1,2,'policy','packed',0,X'3834F4F6CD5BBA5ED2AD173E2032ECF4D04D3408DD6C9C426B9AF303E5D086F4',0,NULL,11,1.79587674355700612069e+09);
INSERT INTO "requests" VALUES(7,2,2,'policy','packed',0,X'4D9EA05E6E0CE7A8090E67622FCAA2BB576A9020615C620BD2A6F1A104F9BC18',0,NULL,11,1.79587674355700612069e+09);
INSERT INTO "requests" VALUES(7,3,2,'policy','packed',0,X'BD8C38E447C03E90F1F34D7917D3DCDD1E1E718EC1C09CFBD445C3EA670ADD3D',0,NULL,11,1.79587674355700612069e+09);
INSERT INTO "requests" VALUES(8,1,2,'policy','packed',0,X'597EEEEBD7E0984D395EDD2584DFDD6CB97986A6C8123176B56D2A48D1446B8B',0,NULL,12,1.79587674359699773791e+09);
INSERT INTO "requests" VALUES(8,2,2,'policy','packed',0,X'1C41E1BA6E568436EB12165496050E549E97325881947EADAA2C21E4DC99EEF6',0,NULL,12,1.79587674359699773791e+09);
INSERT INTO "requests" VALUES(8,3,2,'policy','packed',0,X'42CE588D4E824D8CBF12D14805B0C6266B327FE2F5DB9FB519CB41B1E0E1B68C',0,NULL,12,1.79587674359699773791e+09);
CREATE TABLE reservations (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id INTEGER NOT NULL, 
	reserved_nanos INTEGER NOT NULL, 
	batch_id INTEGER, 
	cost_nanos INTEGER, 
	tokens INTEGER, 
	input_price_nanos INTEGER, 
	output_price_nanos INTEGER, 
	created_at DOUBLE NOT NULL, 
	settled_at DOUBLE, 
	CONSTRAINT fk_reservations_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE, 
	CONSTRAINT fk_reservations_batch_id FOREIGN KEY(batch_id) REFERENCES batches (id) ON DELETE SET NULL
);
INSERT INTO "reservations" VALUES(1,2,80000000,5,40000000,48,1000000000,4000000000,1.79587674323900341991e+09,1.79587674324101495742e+09);
INSERT INTO "reservations" VALUES(2,2,40000000,6,20000000,24,1000000000,4000000000,1.79587674324600410466e+09,1.79587674324700975422e+09);
INSERT INTO "reservations" VALUES(3,7,60000000,11,NULL,NULL,1000000000,4000000000,1795876743.58702,NULL);
CREATE TABLE reviews (
	job_id INTEGER NOT NULL, 
	row_no INTEGER NOT NULL, 
	external_id TEXT, 
	gold_label TEXT, 
	error TEXT, 
	language TEXT, 
	text TEXT NOT NULL, 
	text_sha256 BLOB NOT NULL, 
	attributes JSON, 
	characters INTEGER, 
	CONSTRAINT pk_reviews PRIMARY KEY (job_id, row_no), 
	CONSTRAINT fk_reviews_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "reviews" VALUES(1,1,'id1','pos',NULL,NULL,'text 1, Zoë 👍',X'117D148C87C068604250317DF654B804C9D434A3DC91253FEE2F7B4ABC1BDE98','{"shop":"Rome","stars":1}',13);
INSERT INTO "reviews" VALUES(1,2,'id2','pos',NULL,NULL,'text 2, Zoë 👍',X'E5A73A94AB192A3304E630CE884ADBEF42F607AA15C29CAC5A3EACAD505AC3EA','{"shop":"Rome","stars":2}',13);
INSERT INTO "reviews" VALUES(1,3,'id3','neg',NULL,NULL,'text 3, Zoë 👍',X'DC90BA3588D477D977CD633DE19B5B67F01133217A1D415F6BDCA2326D30EE00','{"shop":"Rome","stars":3}',13);
INSERT INTO "reviews" VALUES(1,4,'id4','pos',NULL,NULL,'text 4, Zoë 👍',X'8456D8D072F2534706AEF167DD3582424783FE806D2A6C7C3652D090914D8D51','{"shop":"Rome","stars":4}',13);
INSERT INTO "reviews" VALUES(1,5,'id5','pos','too odd',NULL,'text 5, Zoë 👍',X'5A58C32CAC69518CF3A00049D7A5A10556191A99A08D2A42C655A218405665F0','{"shop":"Rome","stars":5}',13);
INSERT INTO "reviews" VALUES(1,6,'id6','neg',NULL,NULL,'text 6, Zoë 👍',X'5A69C37C6D9C6937FCB6D19552D1208A994B24418975EC808D24ADCF8E557D1C','{"shop":"Rome","stars":6}',13);
INSERT INTO "reviews" VALUES(1,7,'id7','pos',NULL,NULL,'text 7, Zoë 👍',X'03511BAB0647916820E5618E020FDE4F6B96CEDB134101CB62912F82B168C089','{"shop":"Rome","stars":7}',13);
INSERT INTO "reviews" VALUES(1,8,'id8','pos',NULL,NULL,'text 8, Zoë 👍',X'2C5547EDBCE4BF133217B2F1630B7452938ADE56B20B805BC89796B7466F47C3','{"shop":"Rome","stars":8}',13);
INSERT INTO "reviews" VALUES(2,1,NULL,NULL,NULL,NULL,'review 1 of job 2',X'7261A8E54E29D4BE09937F59CDDE3F88CC45ACAE9F94EE714B1184303A3AD4DB',NULL,17);
INSERT INTO "reviews" VALUES(2,2,NULL,NULL,NULL,NULL,'review 2 of job 2',X'2F9EC26FCD422F7835DC5C71AC22901C45994EFCA7B0998F580B9E31ECEFAD2A',NULL,17);
INSERT INTO "reviews" VALUES(2,3,NULL,NULL,NULL,NULL,'review 3 of job 2',X'70EAEE4084EE55F50C41B58D3C33770C0151B0AFD2D159653A049C16AB7A61C0',NULL,17);
INSERT INTO "reviews" VALUES(2,4,NULL,NULL,NULL,NULL,'review 4 of job 2',X'64810D4830B9807944B59C27C601768C7669F9D56768421CC1E0EAFBA7227E61',NULL,17);
INSERT INTO "reviews" VALUES(2,5,NULL,NULL,NULL,NULL,'review 5 of job 2',X'59F3D54B16854913B706E5AA5C4168ED1E482E68435416390AC68001E2EB754F',NULL,17);
INSERT INTO "reviews" VALUES(2,6,NULL,NULL,NULL,NULL,'review 6 of job 2',X'7736B55A63B2B07AA339893EA1B7F894AE024E8F4BD9B30FE1925459AFEBBCD8',NULL,17);
INSERT INTO "reviews" VALUES(3,1,'x1',NULL,NULL,NULL,'',X'',NULL,8);
INSERT INTO "reviews" VALUES(3,2,'x2',NULL,NULL,NULL,'',X'',NULL,8);
INSERT INTO "reviews" VALUES(3,3,'x3',NULL,NULL,NULL,'',X'',NULL,8);
INSERT INTO "reviews" VALUES(5,1,'x1',NULL,NULL,NULL,'review 1',X'0D1ABD8C269682A4178E7E02EEA38D5754764A7DE6F5426B716BA3F53E205587',NULL,8);
INSERT INTO "reviews" VALUES(5,2,'x2',NULL,NULL,NULL,'review 2',X'014C6DA7092590E2C699037835253FC03D515D2BCC24406683E98C505724172F',NULL,8);
INSERT INTO "reviews" VALUES(5,3,'x3',NULL,NULL,NULL,'review 3',X'862C80A838D310492542ACBF6E9035AE0320F64EE6C23AAC58D38947D0318804',NULL,8);
INSERT INTO "reviews" VALUES(6,1,'x1',NULL,NULL,NULL,'review 1',X'0D1ABD8C269682A4178E7E02EEA38D5754764A7DE6F5426B716BA3F53E205587',NULL,8);
INSERT INTO "reviews" VALUES(6,2,'x2',NULL,NULL,NULL,'review 2',X'014C6DA7092590E2C699037835253FC03D515D2BCC24406683E98C505724172F',NULL,8);
INSERT INTO "reviews" VALUES(6,3,'x3',NULL,NULL,NULL,'review 3',X'862C80A838D310492542ACBF6E9035AE0320F64EE6C23AAC58D38947D0318804',NULL,8);
INSERT INTO "reviews" VALUES(7,1,NULL,NULL,NULL,NULL,'review 1 of job 7',X'3834F4F6CD5BBA5ED2AD173E2032ECF4D04D3408DD6C9C426B9AF303E5D086F4',NULL,17);
INSERT INTO "reviews" VALUES(7,2,NULL,NULL,NULL,NULL,'review 2 of job 7',X'4D9EA05E6E0CE7A8090E67622FCAA2BB576A9020615C620BD2A6F1A104F9BC18',NULL,17);
INSERT INTO "reviews" VALUES(7,3,NULL,NULL,NULL,NULL,'review 3 of job 7',X'BD8C38E447C03E90F1F34D7917D3DCDD1E1E718EC1C09CFBD445C3EA670ADD3D',NULL,17);
INSERT INTO "reviews" VALUES(8,1,NULL,NULL,NULL,NULL,'review 1 of job 8',X'597EEEEBD7E0984D395EDD2584DFDD6CB97986A6C8123176B56D2A48D1446B8B',NULL,17);
INSERT INTO "reviews" VALUES(8,2,NULL,NULL,NULL,NULL,'review 2 of job 8',X'1C41E1BA6E568436EB12165496050E549E97325881947EADAA2C21E4DC99EEF6',NULL,17);
INSERT INTO "reviews" VALUES(8,3,NULL,NULL,NULL,NULL,'review 3 of job 8',X'42CE588D4E824D8CBF12D14805B0C6266B327FE2F5DB9FB519CB41B1E0E1B68C',NULL,17);
INSERT INTO "reviews" VALUES(9,1,'x1',NULL,NULL,NULL,'review 1',X'0D1ABD8C269682A4178E7E02EEA38D5754764A7DE6F5426B716BA3F53E205587',NULL,8);
INSERT INTO "reviews" VALUES(9,2,'x2',NULL,NULL,NULL,'review 2',X'014C6DA7092590E2C699037835253FC03D515D2BCC24406683E98C505724172F',NULL,8);
INSERT INTO "reviews" VALUES(9,3,'x3',NULL,NULL,NULL,'review 3',X'862C80A838D310492542ACBF6E9035AE0320F64EE6C23AAC58D38947D0318804',NULL,8);
INSERT INTO "reviews" VALUES(9,4,'x4',NULL,NULL,NULL,'review 4',X'051E6FAC71EF2A6939736DD75E4F0E7290BAF576B3DE2FC76F161385C3D2665F',NULL,8);
INSERT INTO "reviews" VALUES(9,5,'x5',NULL,NULL,NULL,'review 5',X'E69D88B35A01ED75B06CC214769444638C34C9A5FB2C60CA89C36C256385DBE9',NULL,8);
INSERT INTO "reviews" VALUES(9,6,'x6',NULL,NULL,NULL,'review 6',X'35F334101CE4C266CDAC5073C26F984A5C1D5684B5943BAAC117D5A3E32BACD1',NULL,8);
INSERT INTO "reviews" VALUES(9,7,'x7',NULL,NULL,NULL,'review 7',X'9D3F4F4D7530F6FCAAEB9F9484E0E1E782814EA3F85AD1C92843A80DC522FCF8',NULL,8);
INSERT INTO "reviews" VALUES(9,8,'x8',NULL,NULL,NULL,'review 8',X'283B5B5FE5F60C0DEE34D38D04A2BED8931D2811A6A98AA8F89F08E45DED3ED9',NULL,8);
INSERT INTO "reviews" VALUES(9,9,'x9',NULL,NULL,NULL,'review 9',X'B433E20EB5D54977883B7FC53BF4AEEE573EE1D507CF878A2E63A96FC94F89B6',NULL,8);
INSERT INTO "reviews" VALUES(9,10,'x10',NULL,NULL,NULL,'review 10',X'FA373A319253993ECD3603993BC767FF6D547CF49507115B0AEB1E420EA0BE82',NULL,9);
INSERT INTO "reviews" VALUES(9,11,'x11',NULL,NULL,NULL,'review 11',X'39B06C438186EF31DAAF4E33F1561F80DC0449285B007926CD802A91176F98C9',NULL,9);
INSERT INTO "reviews" VALUES(9,12,'x12',NULL,NULL,NULL,'review 12',X'4311D7C4DFD9235414CE7F5973EEFE072E5ECC93E7B7C5A3B8249E311A4FA46D',NULL,9);
INSERT INTO "reviews" VALUES(9,13,'x13',NULL,NULL,NULL,'review 13',X'225731BB45D50271929E6BFC46A1648A8E2F8735B0FF4D3B6BA5695832A98B5B',NULL,9);
INSERT INTO "reviews" VALUES(9,14,'x14',NULL,NULL,NULL,'review 14',X'C3617BA0910AB8F40E9335C415B4453CDAB8794F808ED4348BA0ECDA383016E0',NULL,9);
INSERT INTO "reviews" VALUES(9,15,'x15',NULL,NULL,NULL,'review 15',X'E632A9780F63991D8D135AD13B4ACC9BAA469CFF85A44178C4F4E3826B7A83E1',NULL,9);
INSERT INTO "reviews" VALUES(9,16,'x16',NULL,NULL,NULL,'review 16',X'AE786087573E089F7FD4B843264F413FF2DDD65AE7CFE6FE981ED761EAD13E93',NULL,9);
INSERT INTO "reviews" VALUES(9,17,'x17',NULL,NULL,NULL,'review 17',X'5EAA1CF2DC9699AEBED4E44AD5D1367747C270BFD0AE23254A1274CFEFCF7EE2',NULL,9);
INSERT INTO "reviews" VALUES(9,18,'x18',NULL,NULL,NULL,'review 18',X'9D9893AD1C4DC01B93FA39D39A2449F046802F592AC2C6AFA62C1040549B29EF',NULL,9);
INSERT INTO "reviews" VALUES(9,19,'x19',NULL,NULL,NULL,'review 19',X'67262A6E36AF7E442C369C5C42730D7F726E15849C911FF9DD1A709DDE718B7F',NULL,9);
INSERT INTO "reviews" VALUES(9,20,'x20',NULL,NULL,NULL,'review 20',X'FC774903CF17F7B272D6617D4CEFDE995BF1E551943384477E13BA808691CD4B',NULL,9);
INSERT INTO "reviews" VALUES(9,21,'x21',NULL,NULL,NULL,'review 21',X'88865617B6E56E87B33ED72398B6242C19CCE88AC96652D8F754ED93D62AB52B',NULL,9);
INSERT INTO "reviews" VALUES(9,22,'x22',NULL,NULL,NULL,'review 22',X'CE11FAB3656CB97A48DA880780ABD2314987D483217FD8D648B90B23056173FB',NULL,9);
INSERT INTO "reviews" VALUES(10,1,'x1',NULL,NULL,NULL,'review 1',X'0D1ABD8C269682A4178E7E02EEA38D5754764A7DE6F5426B716BA3F53E205587',NULL,8);
INSERT INTO "reviews" VALUES(10,2,'x2',NULL,NULL,NULL,'review 2',X'014C6DA7092590E2C699037835253FC03D515D2BCC24406683E98C505724172F',NULL,8);
INSERT INTO "reviews" VALUES(10,3,'x3',NULL,NULL,NULL,'review 3',X'862C80A838D310492542ACBF6E9035AE0320F64EE6C23AAC58D38947D0318804',NULL,8);
INSERT INTO "reviews" VALUES(10,4,'x4',NULL,NULL,NULL,'review 4',X'051E6FAC71EF2A6939736DD75E4F0E7290BAF576B3DE2FC76F161385C3D2665F',NULL,8);
CREATE TABLE scorers (
	id INTEGER NOT NULL, 
	sha256 TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	details JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_scorers PRIMARY KEY (id), 
	CONSTRAINT uq_scorers_sha256 UNIQUE (sha256)
);
INSERT INTO "scorers" VALUES(1,'0000000000000000000000000000000000000000000000000000000000000000','stub','stub','{"rule":"even rows are pos"}',1.79587674308499097822e+09);
INSERT INTO "scorers" VALUES(2,'1111111111111111111111111111111111111111111111111111111111111111','openai','gpt','{"route":"chat","model":"gpt","window":"full","template":{"name":"zero-shot"}}',1.79587674320001745224e+09);
CREATE TABLE worker_faults (
	worker TEXT NOT NULL, 
	adapter_id INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	times INTEGER NOT NULL, 
	probes INTEGER NOT NULL, 
	batch_ids JSON NOT NULL, 
	last_adapter_id INTEGER, 
	since DOUBLE NOT NULL, 
	seen_at DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	CONSTRAINT pk_worker_faults PRIMARY KEY (worker, adapter_id)
);
INSERT INTO "worker_faults" VALUES('host CPU (pid 1)',1,'there is no base model here',1,0,'[]',NULL,1.79587674369999456404e+09,1.79587674370699524879e+09,4102444800.0);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_batches_children ON batches (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX ix_batches_job_id_number ON batches (job_id, number);
CREATE INDEX ix_batches_job_id_state ON batches (job_id, state);
CREATE INDEX ix_batches_live ON batches (lane, state, rank, number, job_id);
CREATE INDEX ix_batches_published ON batches (lane, state, published_at);
CREATE INDEX ix_measurings_due_at ON measurings (due_at);
CREATE INDEX ix_reviews_failed ON reviews (job_id, row_no) WHERE error IS NOT NULL;
CREATE INDEX ix_bulks_state ON bulks (state);
CREATE INDEX ix_requests_batch_id ON requests (batch_id);
CREATE INDEX ix_requests_job_id_state_reason ON requests (job_id, state, reason);
CREATE INDEX ix_requests_open ON requests (job_id, row_no) WHERE state = 'open';
CREATE INDEX ix_requests_scorer_id_text_sha256_state ON requests (scorer_id, text_sha256, state);
CREATE INDEX ix_reservations_batch_id ON reservations (batch_id);
CREATE INDEX ix_reservations_job_id ON reservations (job_id);
CREATE VIEW results AS
SELECT reviews.job_id, reviews.row_no, reviews.external_id AS id,
       coalesce(oracle.label, adapter.label) AS label,
       CASE WHEN oracle.label IS NULL THEN adapter.score ELSE oracle.score END AS score,
       CASE WHEN oracle.label IS NOT NULL THEN 'oracle'
            WHEN adapter.label IS NULL THEN NULL
            WHEN asked.reason IN ('cascade', 'language', 'guarantee', 'training', 'held_out')
                THEN 'adapter_unconfirmed'
            ELSE 'adapter' END AS source,
       scorers.name AS scorer, coalesce(correction.label, reviews.gold_label) AS gold_label, reviews.error,
       asked.reason AS asked, CAST(oracle.cost_nanos AS DOUBLE PRECISION) / 1e9 AS cost,
       CASE WHEN correction.label IS NULL THEN 0 ELSE 1 END AS corrected,
       coalesce(correction.label, oracle.label, adapter.label) AS corrected_label,
       coalesce(oracle.created_at, adapter.created_at) AS labelled_at
FROM reviews
LEFT JOIN requests AS asked ON asked.job_id = reviews.job_id AND asked.row_no = reviews.row_no
LEFT JOIN labels AS oracle ON oracle.job_id = reviews.job_id AND oracle.row_no = reviews.row_no
    AND oracle.rater = 'oracle' AND asked.reason <> 'audit'
LEFT JOIN labels AS adapter ON adapter.job_id = reviews.job_id AND adapter.row_no = reviews.row_no
    AND adapter.rater = 'adapter' AND coalesce(asked.reason, '') <> 'policy'
LEFT JOIN corrections AS correction ON correction.job_id = reviews.job_id AND correction.row_no = reviews.row_no
LEFT JOIN scorers ON scorers.id = coalesce(oracle.scorer_id, adapter.scorer_id);
CREATE VIEW costs AS
SELECT parts.job_id, parts.scorer_id, scorers.name AS scorer, sum(parts.labels) AS labels,
       sum(parts.paid) AS paid_labels, sum(parts.tokens) AS tokens,
       CAST(sum(parts.cost_nanos) AS DOUBLE PRECISION) / 1e9 AS cost,
       CAST(sum(parts.lost_nanos) AS DOUBLE PRECISION) / 1e9 AS lost
FROM (
    SELECT job_id, scorer_id, 1 AS labels, CASE WHEN cost_nanos > 0 THEN 1 ELSE 0 END AS paid, 0 AS tokens,
           0 AS cost_nanos, 0 AS lost_nanos
    FROM labels
    UNION ALL
    SELECT reservations.job_id, batches.scorer_id, 0, 0, coalesce(reservations.tokens, 0),
           coalesce(reservations.cost_nanos, 0),
           CASE WHEN reservations.cost_nanos IS NULL AND batches.state NOT IN ('running', 'submitted')
                THEN reservations.reserved_nanos ELSE 0 END
    FROM reservations JOIN batches ON batches.id = reservations.batch_id
) AS parts JOIN scorers ON scorers.id = parts.scorer_id
GROUP BY parts.job_id, parts.scorer_id, scorers.name;
CREATE VIEW agreement_latest AS
SELECT job_id, raters, selection, slice, n,
       CAST(statistics -> 'observed' ->> 'value' AS DOUBLE PRECISION) AS observed,
       CAST(statistics -> 'observed' ->> 'low' AS DOUBLE PRECISION) AS observed_low,
       CAST(statistics -> 'observed' ->> 'high' AS DOUBLE PRECISION) AS observed_high,
       CAST(statistics -> 'kappa' ->> 'value' AS DOUBLE PRECISION) AS kappa,
       CAST(statistics -> 'kappa' ->> 'low' AS DOUBLE PRECISION) AS kappa_low,
       CAST(statistics -> 'kappa' ->> 'high' AS DOUBLE PRECISION) AS kappa_high,
       CAST(statistics -> 'ac1' ->> 'value' AS DOUBLE PRECISION) AS ac1,
       CAST(statistics -> 'ac1' ->> 'low' AS DOUBLE PRECISION) AS ac1_low,
       CAST(statistics -> 'ac1' ->> 'high' AS DOUBLE PRECISION) AS ac1_high,
       created_at
FROM agreements;
CREATE VIEW job_summary AS
SELECT counts.job_id, counts.name, counts.state, counts.policy, counts.adapter, counts.oracle, counts.reviews,
       counts.rejected,
       CASE WHEN counts.reviews > counts.failed + counts.waiting + counts.asked
            THEN counts.reviews - counts.failed - counts.waiting - counts.asked ELSE 0 END AS labelled,
       counts.failed, counts.by_oracle, measured.n AS with_gold,
       CAST(round(CAST(measured.statistics -> 'observed' ->> 'value' AS DOUBLE PRECISION) * measured.n) AS BIGINT)
           AS "right",
       CAST(counts.spent_nanos AS DOUBLE PRECISION) / 1e9 AS spent, counts.created_at, counts.finished_at
FROM (
    SELECT jobs.id AS job_id, jobs.name, jobs.state, jobs.policy, adapters.name AS adapter, scorers.name AS oracle,
           jobs.records_read - (SELECT count(*) FROM rejects WHERE rejects.job_id = jobs.id) AS reviews,
           (SELECT count(*) FROM rejects WHERE rejects.job_id = jobs.id) AS rejected,
           (SELECT count(*) FROM reviews WHERE reviews.job_id = jobs.id AND reviews.error IS NOT NULL) AS failed,
           CASE WHEN jobs.policy LIKE 'oracle%' THEN 0
                WHEN EXISTS (SELECT 1 FROM distillations
                             WHERE distillations.job_id = jobs.id AND distillations.stage <> 'labelling')
                THEN (SELECT count(*) FROM reviews WHERE reviews.job_id = jobs.id)
                     - (SELECT count(*) FROM requests WHERE requests.job_id = jobs.id
                                                        AND requests.state IN ('open', 'packed', 'labelled'))
                ELSE (
               SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM batches
               WHERE batches.job_id = jobs.id AND batches.lane = 'adapter'
                 AND batches.state IN ('queued', 'running', 'submitted', 'parked', 'cancelled')
           ) END AS waiting,
           (SELECT count(*) FROM requests
            WHERE requests.job_id = jobs.id AND requests.state IN ('open', 'packed')
              AND (requests.reason IN ('policy', 'fallback')
                   OR requests.reason IN ('cascade', 'language', 'guarantee', 'training', 'held_out')
                      AND jobs.state IN ('reading', 'running'))) AS asked,
           (SELECT count(*) FROM requests
            WHERE requests.job_id = jobs.id AND requests.state = 'labelled' AND requests.reason <> 'audit'
           ) AS by_oracle,
           jobs.spent_nanos, jobs.created_at, jobs.finished_at
    FROM jobs
    JOIN adapters ON adapters.id = jobs.adapter_id
    LEFT JOIN scorers ON scorers.id = jobs.oracle_id
) AS counts
LEFT JOIN agreements AS measured ON measured.job_id = counts.job_id AND measured.raters = 'gold,final'
    AND measured.selection IN ('all', 'random') AND measured.slice = 'all';
CREATE VIEW certificates AS
SELECT job_id, CAST(certificate ->> 'target' AS DOUBLE PRECISION) AS target,
       CAST(certificate ->> 'delta' AS DOUBLE PRECISION) AS delta,
       CAST(certificate ->> 'certified' AS DOUBLE PRECISION) AS certified, reviews, sample, tolerated,
       CAST(certificate ->> 'found' AS BIGINT) AS found, CAST(certificate ->> 'trusted' AS BIGINT) AS trusted,
       CAST(certificate ->> 'asked' AS BIGINT) AS asked,
       CAST(certificate ->> 'unconfirmed' AS BIGINT) AS unconfirmed, claim,
       CASE WHEN CAST(certificate ->> 'certified' AS DOUBLE PRECISION)
                 >= CAST(certificate ->> 'target' AS DOUBLE PRECISION) - 1e-9 THEN 1 ELSE 0 END AS holds
FROM guarantees
WHERE certificate IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',10);
INSERT INTO "sqlite_sequence" VALUES('batches',19);
INSERT INTO "sqlite_sequence" VALUES('reservations',3);
COMMIT;
